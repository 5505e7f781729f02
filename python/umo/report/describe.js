// A row in words, with exact values.

const SENTENCES = {
    transfer_performed: "bytes went to the other side",
    transfer_eliminated: "bytes did not have to go to the other side",
    copy: "copied within host memory",
    copy_avoided: "not copied",
};

const ENDS = [null, "its end is not in the recording", "its begin is not in the recording"];

function rowTitle(recording, row) {
    const bracket = /^access_(begin|end|abort)$/.test(row.kindName);
    if (bracket && row.status === 0) {
        const use = (recording.uses[row.use] || "use").replace("_", " and ");
        return `${recording.sides[row.side]} ${use}${row.aborted ? ", failed" : ""}`;
    }
    if (row.kindName === "pattern") {
        const [now, before] = [row.detail & 255, row.detail >> 8].map((number) => recording.patterns[number] || number);
        return `pattern: ${now}, before ${before}`.replaceAll("_", " ");
    }
    if (row.kindName === "placement") {
        return `placement: ${recording.modes[row.mode] || ""} (${recording.whys[row.detail & 255] || "?"})`;
    }
    if (row.kindName === "numa_move") {
        return `pages ${row.status === 0 ? "moved" : "did not all move"} to node ${row.detail}`;
    }
    if (row.kindName === "batch") {
        return `the engine ran for ${row.detail.toLocaleString("en")} requests`;
    }
    if (row.kindName === "pressure_level") {
        return `pressure: ${recording.pressure_levels[row.detail] || row.detail}`;
    }
    if (row.kindName === "pressure_answer") {
        return `answer to pressure: ${recording.pressure_answers[row.detail] || row.detail}`;
    }
    return row.kindName.replaceAll("_", " ");
}

// What the fields of a place and a fence hold, by kind.
function numbersOf(row) {
    if (row.kindName === "request" || row.kindName === "batch") {
        return [
            ["run", row.number ? String(row.number) : ""],
            ["Triton trace", row.fence ? String(row.fence) : ""],
        ];
    }
    if (row.kindName === "placement") {
        return [
            ["uses here", row.number ? timeText(row.number) : ""],
            ["uses there", row.fence ? timeText(row.fence) : ""],
        ];
    }
    return [["fence", row.fence ? `${row.fence} on queue ${row.queue}` : ""]];
}

function rowFields(recording, row, scopeName) {
    const label = (words, value) => (words[value] === undefined ? "" : words[value]);
    const mode = label(recording.modes, row.mode);
    const before = label(recording.modes, row.mode_before);
    const fields = [
        ["what", SENTENCES[row.kindName]],
        ["size", row.size || row.kindName.includes("transfer") ? exactBytes(row.size) : ""],
        ["offset", row.offset ? exactBytes(row.offset) : ""],
        ["at", momentText(row.start)],
        ["took", row.duration ? `${timeText(row.duration)} (${row.duration.toLocaleString("en")} ns)` : ""],
        ["way", label(recording.directions, row.direction)],
        ["reason", row.reason ? label(recording.reasons, row.reason) : ""],
        ["mode", before ? `${before} \u2192 ${mode}` : mode],
        ["buffer", row.buffer ? `#${row.buffer}` : ""],
        ["model", scopeName(row.scope)],
        ["device", row.device ? recording.devices[row.device] || `device ${row.device}` : ""],
        ["thread", row.thread ? String(row.thread) : ""],
        ...numbersOf(row),
        ["result", row.status ? label(recording.statuses, row.status) : ""],
        ["note", ENDS[row.ends]],
    ];
    return fields.filter(([, value]) => value);
}

function describeRow(recording, i, scopeName) {
    const row = rowOf(recording, i);
    const name = recording.className[recording.class[i]];
    const list = element("dl");
    for (const [key, value] of rowFields(recording, row, scopeName)) {
        list.append(element("div", {}, element("dt", {}, key), element("dd", {}, element("bdi", {}, value))));
    }
    const title = element("h3", {}, element("i", { class: `key ${name}` }), rowTitle(recording, row));
    return element("div", { class: "described" }, title, list);
}

// Beside the pointer, inside the window.
function showTip(tip, x, y) {
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    const left = x + 16 + width > window.innerWidth ? x - 16 - width : x + 16;
    const top = y + 16 + height > window.innerHeight ? y - 16 - height : y + 16;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${Math.max(4, top)}px`;
}
