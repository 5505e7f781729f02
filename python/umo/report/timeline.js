// The timeline: lanes in groups by model, one canvas as high as the window on them, labels beside it.

const GROUP_HEIGHT = 30;
const WORDS = {
    request: "requests",
    host: "host uses",
    device: "device uses",
    moved: "still moved",
    saved: "saved",
    change: "changes, pressure",
    failed: "failed",
    memory: "memory, pools",
};

class Timeline {
    constructor(recording, view) {
        this.recording = recording;
        this.view = view;
        this.painter = new Painter(recording, view);
        this.closed = new Set(recording.lanes.filter((lane) => this.measures(lane.scope)).map((lane) => lane.scope));
        this.filter = "";
        this.selected = -1;
        this.current = -1;
        for (const id of ["scroller", "space", "field", "labels", "axis", "lanes", "details", "tip", "range"]) {
            this[id] = document.getElementById(id);
        }
        const box = () => this.field.getBoundingClientRect();
        this.gestures = new Gestures(this.field, view, () => box().left, () => this.width, (event) => this.tap(event));
        this.scroller.addEventListener("scroll", () => view.changed());
        this.field.addEventListener("pointermove", (event) => this.hover(event));
        this.field.addEventListener("pointerleave", () => (this.tip.hidden = true));
        this.lanes.addEventListener("keydown", (event) => this.key(event));
        this.makeClasses();
        this.tellSince();
        this.layout();
        view.listen(() => this.draw());
    }

    measures(scope) {
        return this.recording.measurements.includes(this.recording.scopes[scope]);
    }

    scopeName(scope) {
        return this.recording.scopes[scope] || (scope ? `scope ${scope}` : "no scope");
    }

    // Where the page had no room for all events.
    tellSince() {
        const { since_ns: since, rows } = this.recording;
        const note = document.getElementById("since");
        note.hidden = since === 0;
        note.textContent =
            `There was no room for all ${rows.toLocaleString("en")} events: one by one they are here from ` +
            `${momentText(since)} on, before that in 4096 parts of the time. Sums are of all.`;
    }

    // Buttons that are the legend as well.
    makeClasses() {
        const there = new Set(this.recording.lines.map((line) => line % this.recording.className.length));
        this.recording.className.forEach((name, number) => {
            if (!there.has(number)) {
                return;
            }
            const button = element("button", { type: "button", "aria-pressed": "true" });
            button.append(element("i", { class: `key ${name}` }), WORDS[name] || name);
            button.addEventListener("click", () => {
                const hide = !this.painter.hidden.has(name);
                this.painter.hidden[hide ? "add" : "delete"](name);
                button.setAttribute("aria-pressed", String(!hide));
                this.view.changed();
            });
            document.getElementById("classes").append(button);
        });
    }

    matches(lane) {
        if (!this.filter) {
            return true;
        }
        const { scope, label, memory } = this.recording.lanes[lane];
        return `${this.scopeName(scope)} ${label} ${memory}`.toLowerCase().includes(this.filter);
    }

    // Where each group and lane stands, and their labels.
    layout() {
        this.narrow = this.lanes.clientWidth < 640;
        this.items = [];
        this.labels.replaceChildren();
        let top = 0;
        let scope = null;
        this.recording.lanes.forEach((lane, number) => {
            if (!this.matches(number)) {
                return;
            }
            if (lane.scope !== scope) {
                scope = lane.scope;
                this.items.push({ group: scope, top, height: GROUP_HEIGHT });
                this.labels.append(this.groupLabel(scope, top));
                top += GROUP_HEIGHT;
            }
            if (this.closed.has(scope)) {
                return;
            }
            const lines = SPAN_LANES.has(lane.what) ? this.painter.depth(number).count : 1;
            const height = (this.narrow ? 40 : 24) + (lines > 1 ? (lines - 1) * 7 : 0);
            this.items.push({ lane: number, top, height });
            this.labels.append(this.laneLabel(lane, number, top, height));
            top += height;
        });
        this.total = top;
        this.space.style.height = `${Math.max(top, 40)}px`;
        this.scroller.style.height = `${Math.min(Math.max(top, 40), Math.max(240, window.innerHeight * 0.66))}px`;
        this.size();
    }

    groupLabel(scope, top) {
        const open = !this.closed.has(scope);
        const name = this.scopeName(scope) + (this.measures(scope) ? " (umo measures the machine)" : "");
        const button = element("button", { type: "button", class: "group", "aria-expanded": String(open) });
        button.append(element("span", { class: "caret", "aria-hidden": "true" }), element("bdi", {}, name));
        button.style.top = `${top}px`;
        button.addEventListener("click", () => {
            this.closed[open ? "add" : "delete"](scope);
            this.layout();
            this.view.changed();
        });
        return button;
    }

    laneLabel(lane, number, top, height) {
        const label = element("div", { class: "lane", title: `${lane.label}; ${lane.memory}` });
        label.append(lane.label, element("small", {}, lane.what === "buffers" ? lane.memory : ""));
        label.style.top = `${top}px`;
        label.style.height = `${this.narrow ? 17 : height}px`;
        label.dataset.lane = number;
        return label;
    }

    size() {
        this.gutter = this.narrow ? 0 : Math.min(300, this.lanes.clientWidth * 0.3);
        this.labels.style.width = this.narrow ? "100%" : `${this.gutter}px`;
        this.width = Math.max(50, this.scroller.clientWidth - this.gutter);
        this.field.style.marginLeft = `${this.gutter}px`;
        this.axis.style.marginLeft = `${this.gutter}px`;
    }

    draw() {
        const height = this.scroller.clientHeight;
        const scroll = this.scroller.scrollTop;
        const context = prepare(this.field, this.width, height);
        this.bands(context, height);
        this.grid(context, height);
        for (const item of this.items) {
            const top = item.top - scroll;
            if (top + item.height < 0 || top > height) {
                continue;
            }
            if (item.lane === undefined) {
                this.group(context, item.group, top);
                continue;
            }
            context.fillStyle = colour("line");
            context.fillRect(0, top + item.height - 1, this.width, 1);
            const spare = this.narrow ? 16 : 0;
            this.painter.lane(context, item.lane, top + spare, item.height - spare, this.width);
            if (item.lane === this.current) {
                context.strokeStyle = colour("accent");
                context.strokeRect(0.5, top + 0.5, this.width - 1, item.height - 2);
            }
            this.mark(context, item, top + spare, item.height - spare);
        }
        this.drawAxis();
        const whole = this.view.length >= this.view.duration * 0.9999;
        this.range.textContent = whole
            ? `all of ${timeText(this.view.duration)}`
            : `${timeText(this.view.length)} from ${momentText(this.view.from)}`;
    }

    // A group's row says what its scope saved and what it still moves.
    group(context, scope, top) {
        context.fillStyle = colour("group");
        context.fillRect(0, top, this.width, GROUP_HEIGHT);
        context.font = `12px ${getComputedStyle(document.body).fontFamily}`;
        const { moved, saved } = this.recording.sums[scope] || {};
        let right = this.width - 10;
        for (const [words, name, size] of [["still moved", "moved", moved], ["saved", "saved", saved]]) {
            if (size > 0) {
                const said = `${bytesText(size)} ${words}`;
                const room = context.measureText(said).width;
                if (!this.narrow) {
                    context.fillStyle = colour(name);
                    context.fillText(said, right - room, top + 20);
                }
                right -= room + 18;
            }
        }
    }

    // The selected row has a frame.
    mark(context, item, top, height) {
        const { first, start, duration } = this.recording;
        const i = this.selected;
        if (i < first[item.lane] || i >= first[item.lane + 1]) {
            return;
        }
        const scale = this.width / this.view.length;
        const left = (start[i] - this.view.from) * scale;
        context.strokeStyle = colour("ink");
        context.lineWidth = 2;
        context.strokeRect(left - 2, top + 1, Math.max(2, duration[i] * scale) + 4, height - 3);
        context.lineWidth = 1;
    }

    // Times of pressure lie behind everything.
    bands(context, height) {
        const { levels } = this.recording.pressure;
        const scale = this.width / this.view.length;
        levels.forEach(([time, level], i) => {
            const end = i + 1 < levels.length ? levels[i + 1][0] : this.view.duration;
            if (level > 0 && end > this.view.from && time < this.view.to) {
                context.globalAlpha = 0.08 + 0.06 * level;
                context.fillStyle = colour("moved");
                context.fillRect((time - this.view.from) * scale, 0, Math.max(1, (end - time) * scale), height);
            }
        });
        context.globalAlpha = 1;
    }

    ticks() {
        const step = roundStep(this.view.length, this.width / 110);
        const made = [];
        for (let at = Math.ceil(this.view.from / step) * step; at <= this.view.to; at += step) {
            made.push([((at - this.view.from) / this.view.length) * this.width, tickText(at, step, this.view.to)]);
        }
        return made;
    }

    grid(context, height) {
        context.fillStyle = colour("line");
        for (const [x] of this.ticks()) {
            context.fillRect(Math.round(x), 0, 1, height);
        }
    }

    drawAxis() {
        const context = prepare(this.axis, this.width, 24);
        context.fillStyle = colour("faint");
        context.font = `12px ${getComputedStyle(document.body).fontFamily}`;
        for (const [x, words] of this.ticks()) {
            const room = context.measureText(words).width;
            context.fillText(words, Math.min(Math.max(0, x - room / 2), this.width - room), 16);
        }
    }

    itemAt(y) {
        return this.items.find((item) => y >= item.top && y < item.top + item.height);
    }

    under(event) {
        const box = this.field.getBoundingClientRect();
        const item = this.itemAt(event.clientY - box.top + this.scroller.scrollTop);
        const x = event.clientX - box.left;
        if (item === undefined || item.lane === undefined) {
            return null;
        }
        const spare = this.narrow ? 16 : 0;
        const y = event.clientY - box.top + this.scroller.scrollTop - item.top - spare;
        return { lane: item.lane, found: this.painter.find(item.lane, x, this.width, y, item.height - spare) };
    }

    hover(event) {
        const under = this.gestures.dragging || event.pointerType === "touch" ? null : this.under(event);
        if (under === null || under.found.count === 0) {
            this.tip.hidden = true;
            return;
        }
        const several = under.found.count > 1 ? this.several(under.found) : null;
        this.tip.replaceChildren(this.describe(under.found.best, under.lane), ...(several ? [several] : []));
        showTip(this.tip, event.clientX, event.clientY);
    }

    // What else is there within a few pixels.
    several({ rows, count }) {
        let moved = 0;
        let saved = 0;
        for (const i of rows) {
            const name = this.recording.className[this.recording.class[i]];
            moved += name === "moved" ? sizeOf(this.recording, i) : 0;
            saved += name === "saved" ? sizeOf(this.recording, i) : 0;
        }
        const more = rows.length < count ? " at least" : "";
        const said = [`${count.toLocaleString("en")} events within 5 pixels`];
        if (moved) {
            said.push(`moved${more} ${bytesText(moved)}`);
        }
        if (saved) {
            said.push(`saved${more} ${bytesText(saved)}`);
        }
        const titles = new Map();
        for (const i of rows) {
            const title = rowTitle(this.recording, rowOf(this.recording, i));
            titles.set(title, (titles.get(title) || 0) + 1);
        }
        const list = [...titles].slice(0, 6).map(([title, times]) => (times > 1 ? `${times} x ${title}` : title));
        return element("p", { class: "more" }, `${said.join("; ")}: ${list.join(", ")}`);
    }

    tap(event) {
        this.lanes.focus({ preventScroll: true });
        const under = this.under(event);
        if (under !== null) {
            this.current = under.lane;
            this.select(under.found.best);
        }
    }

    select(i) {
        this.selected = i;
        this.details.replaceChildren();
        if (i >= 0) {
            const lane = this.recording.first.findIndex((_, at) => i < this.recording.first[at + 1]);
            this.details.append(this.describe(i, lane));
            this.view.show(this.recording.start[i], this.recording.start[i] + this.recording.duration[i]);
        }
        this.view.changed();
    }

    describe(i, lane) {
        return describeRow(this.recording, i, this.scopeName.bind(this), this.recording.lanes[lane]);
    }

    // The lane above or below, made visible.
    step(by) {
        const lanes = this.items.filter((item) => item.lane !== undefined);
        const at = lanes.findIndex((item) => item.lane === this.current);
        const next = lanes[Math.min(Math.max(0, at + by), lanes.length - 1)];
        if (next === undefined) {
            return;
        }
        this.current = next.lane;
        const { scrollTop, clientHeight } = this.scroller;
        if (next.top < scrollTop || next.top + next.height > scrollTop + clientHeight) {
            this.scroller.scrollTop = next.top - clientHeight / 2;
        }
        const lane = this.recording.lanes[next.lane];
        this.details.replaceChildren(
            element("p", {}, `${this.scopeName(lane.scope)}: ${lane.label}, ${lane.events.toLocaleString("en")} events`),
        );
        this.view.changed();
    }

    // The next or last row of the current lane, from the selected one or from where the view begins.
    next(by) {
        if (this.current < 0) {
            this.step(1);
        }
        const { first, start } = this.recording;
        const [low, high] = [first[this.current], first[this.current + 1]];
        const inside = this.selected >= low && this.selected < high;
        const at = inside ? this.selected + by : lowerBound(start, low, high, this.view.from);
        if (at >= low && at < high) {
            this.select(at);
        }
    }

    key(event) {
        const actions = {
            ArrowLeft: () => this.view.pan(-0.2),
            ArrowRight: () => this.view.pan(0.2),
            ArrowUp: () => this.step(-1),
            ArrowDown: () => this.step(1),
            "+": () => this.view.zoom(0.5),
            "=": () => this.view.zoom(0.5),
            "-": () => this.view.zoom(2),
            0: () => this.view.all(),
            Home: () => this.view.all(),
            Enter: () => this.next(event.shiftKey ? -1 : 1),
            Escape: () => this.select(-1),
        };
        const action = actions[event.key];
        if (action && !event.ctrlKey && !event.metaKey && !event.altKey && event.target === this.lanes) {
            event.preventDefault();
            action();
        }
    }
}
