// Quantities as a person reads them; the same as words.py.

function scaled(value, step, units) {
    let place = 0;
    while (place + 1 < units.length && Number(value.toPrecision(3)) >= step) {
        value /= step;
        place++;
    }
    const digits = place === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
    return `${value.toFixed(digits)} ${units[place]}`;
}

const bytesText = (value) => scaled(value, 1000, ["B", "kB", "MB", "GB", "TB", "PB"]);

const exactBytes = (value) =>
    value < 1000 ? `${value} B` : `${bytesText(value)} (${value.toLocaleString("en")} B)`;

function timeText(ns) {
    if (ns < 59.95e9) {
        return scaled(ns, 1000, ["ns", "\u00b5s", "ms", "s"]);
    }
    const seconds = Math.round(ns / 1e9);
    if (seconds < 3600) {
        return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
    }
    return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds / 60) % 60} min`;
}

// A moment with all its digits: 2.389 623 434 s.
function momentText(ns) {
    const whole = Math.floor(ns / 1e9);
    const rest = String(Math.round(ns - whole * 1e9)).padStart(9, "0");
    return `${whole.toLocaleString("en")}.${rest.replace(/(\d{3})(?=\d)/g, "$1\u202f")} s`;
}

// Round steps of an axis over `length`, at most `most` of them.
function roundStep(length, most) {
    const rough = length / Math.max(1, most);
    const power = 10 ** Math.floor(Math.log10(rough));
    return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough * 0.999) || 10 * power;
}

// The label of a tick: in the unit of the axis's end, with as many digits as the step needs.
function tickText(ns, step, end) {
    const units = [[1e9, "s"], [1e6, "ms"], [1e3, "\u00b5s"], [1, "ns"]];
    const [unit, name] = units.find(([size]) => end >= size) || units[3];
    const digits = Math.max(0, Math.ceil(-Math.log10(step / unit) - 1e-9));
    return `${(ns / unit).toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })} ${name}`;
}

// An element with text and children; text is never markup.
function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
        if (value !== undefined && value !== false) {
            made.setAttribute(key, value === true ? "" : value);
        }
    }
    made.append(...children);
    return made;
}
