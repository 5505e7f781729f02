// Puts the page together. window.umo is for whoever wants to look closer from the browser's console, and for tests.

function makeTheme(redraw) {
    const root = document.documentElement;
    const dark = window.matchMedia("(prefers-color-scheme: dark)");
    document.getElementById("theme").addEventListener("click", () => {
        const now = root.dataset.theme || (dark.matches ? "dark" : "light");
        root.dataset.theme = now === "dark" ? "light" : "dark";
        redraw();
    });
    dark.addEventListener("change", redraw);
    window.addEventListener("beforeprint", () => {
        root.dataset.before = root.dataset.theme || "";
        root.dataset.theme = "light";
        redraw(true);
    });
    window.addEventListener("afterprint", () => {
        root.dataset.theme = root.dataset.before;
        redraw();
    });
}

async function main() {
    const recording = await readRecording();
    const view = new View(recording.duration_ns);
    const overview = new Overview(recording, view);
    const timeline = new Timeline(recording, view);
    const memory = new MemoryChart(recording, view);
    makeTables();
    makeSearch(timeline);
    makeTheme((now) => {
        colour.forget();
        timeline.painter.recolour();
        if (now === true) {
            view.listeners.forEach((draw) => draw());
        } else {
            view.changed();
        }
    });
    const buttons = { in: () => view.zoom(0.5), out: () => view.zoom(2), all: () => view.all() };
    for (const button of document.querySelectorAll("[data-do]")) {
        button.addEventListener("click", buttons[button.dataset.do]);
    }
    let wide = window.innerWidth;
    window.addEventListener("resize", () => {
        if (window.innerWidth !== wide) {
            wide = window.innerWidth;
            timeline.layout();
        }
        view.changed();
    });
    for (const draw of view.listeners) {
        draw();
    }
    window.umo = { recording, view, timeline, overview, memory };
    performance.mark("umo-ready");
    document.documentElement.dataset.ready = "true";
}

main().catch((error) => {
    document.getElementById("details").textContent = `The timeline cannot be shown: ${error.message}`;
    console.error(error);
});
