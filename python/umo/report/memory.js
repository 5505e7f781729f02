// Memory over time: what each scope holds, stacked, and what pools keep idle as a line; the same time as the timeline.

class MemoryChart {
    constructor(recording, view) {
        this.recording = recording;
        this.view = view;
        this.memory = recording.memory;
        this.canvas = document.getElementById("memory-chart");
        this.tip = document.getElementById("tip");
        this.left = 64;
        this.height = 240;
        const box = () => this.canvas.getBoundingClientRect();
        new Gestures(this.canvas, view, () => box().left + this.left, () => this.width, () => {});
        this.canvas.addEventListener("pointermove", (event) => this.hover(event));
        this.canvas.addEventListener("pointerleave", () => (this.tip.hidden = true));
        this.describe();
        view.listen(() => this.draw());
    }

    name(scope) {
        return scope === null ? "all others" : this.recording.scopes[scope] || `scope ${scope}`;
    }

    describe() {
        const { peak_bytes: peak, peak_ns: at, exact, series, scopes } = this.memory;
        const note = peak
            ? `At most ${bytesText(peak)}, at ${momentText(at)}. ` +
              (exact ? "Every step is shown." : "Each of 4096 parts of the time is shown at its highest.")
            : "No memory was taken or given back.";
        document.getElementById("memory-note").textContent = note;
        const legend = document.getElementById("memory-legend");
        this.used = series.map((_, i) => i).filter((i) => series[i].some((value) => value > 0));
        this.used.forEach((i, place) => {
            legend.append(element("li", {}, element("i", { class: `key stack-${place}` }), element("bdi", {}, this.name(scopes[i]))));
        });
        if (this.memory.idle.some((value) => value > 0)) {
            legend.append(element("li", {}, element("i", { class: "key idle" }), "kept idle by pools"));
        }
        if (this.recording.pressure.levels.length > 0) {
            legend.append(element("li", {}, element("i", { class: "key band" }), "memory was short"));
        }
    }

    // The step that holds at a moment; -1 before the first.
    at(time) {
        const { times } = this.memory;
        return lowerBound(times, 0, times.length, time + 0.5) - 1;
    }

    // Steps in view, one a pixel at most: the highest of those that share one.
    steps() {
        const { times, series } = this.memory;
        const made = [];
        const end = this.at(this.view.to);
        let lastX = -1;
        for (let i = Math.max(0, this.at(this.view.from)); i <= end; i++) {
            const x = Math.max(0, ((times[i] - this.view.from) / this.view.length) * this.width);
            const total = this.used.reduce((sum, s) => sum + series[s][i], 0);
            const pixel = Math.floor(x * 2);
            if (pixel !== lastX) {
                made.push({ x, i, total });
                lastX = pixel;
            } else if (total > made[made.length - 1].total) {
                made[made.length - 1] = { x: made[made.length - 1].x, i, total };
            }
        }
        return made;
    }

    draw() {
        const full = this.canvas.parentElement.clientWidth;
        this.width = Math.max(50, full - this.left);
        const context = prepare(this.canvas, full, this.height);
        const steps = this.steps();
        const bottom = this.height - 24;
        const most = Math.max(1, ...steps.map((step) => step.total)) * 1.05;
        context.font = `12px ${getComputedStyle(document.body).fontFamily}`;
        this.bands(context, bottom);
        this.axis(context, bottom, most);
        this.stack(context, steps, bottom, most);
        this.idle(context, steps, bottom, most);
    }

    axis(context, bottom, most) {
        const step = roundStep(most, 4);
        for (let value = 0; value <= most; value += step) {
            const y = bottom - (value / most) * (bottom - 8);
            context.fillStyle = colour("line");
            context.fillRect(this.left, Math.round(y), this.width, 1);
            context.fillStyle = colour("faint");
            context.textAlign = "right";
            context.fillText(value ? bytesText(value) : "0", this.left - 8, y + 4);
        }
        context.textAlign = "left";
        const length = roundStep(this.view.length, this.width / 110);
        for (let at = Math.ceil(this.view.from / length) * length; at <= this.view.to; at += length) {
            const words = tickText(at, length, this.view.to);
            const room = context.measureText(words).width;
            const x = this.left + ((at - this.view.from) / this.view.length) * this.width;
            context.fillText(words, Math.min(Math.max(this.left, x - room / 2), this.left + this.width - room), bottom + 18);
        }
    }

    stack(context, steps, bottom, most) {
        const { series } = this.memory;
        const base = new Float64Array(steps.length);
        const y = (value) => bottom - (value / most) * (bottom - 8);
        this.used.forEach((s, place) => {
            context.fillStyle = colour(`stack-${place}`);
            context.beginPath();
            const upper = [];
            steps.forEach(({ x, i }, at) => {
                const end = at + 1 < steps.length ? steps[at + 1].x : this.width;
                upper.push([this.left + x, y(base[at] + series[s][i])], [this.left + end, y(base[at] + series[s][i])]);
            });
            upper.forEach(([px, py]) => context.lineTo(px, py));
            for (let at = steps.length - 1; at >= 0; at--) {
                const end = at + 1 < steps.length ? steps[at + 1].x : this.width;
                context.lineTo(this.left + end, y(base[at]));
                context.lineTo(this.left + steps[at].x, y(base[at]));
                base[at] += series[s][steps[at].i];
            }
            context.fill();
        });
    }

    idle(context, steps, bottom, most) {
        if (!this.memory.idle.some((value) => value > 0)) {
            return;
        }
        context.strokeStyle = colour("ink");
        context.globalAlpha = 0.6;
        context.lineWidth = 1;
        context.beginPath();
        steps.forEach(({ x, i }, at) => {
            const end = at + 1 < steps.length ? steps[at + 1].x : this.width;
            const y = bottom - (this.memory.idle[i] / most) * (bottom - 8);
            context.lineTo(this.left + x, y);
            context.lineTo(this.left + end, y);
        });
        context.stroke();
        context.globalAlpha = 1;
    }

    bands(context, bottom) {
        const { levels, answers } = this.recording.pressure;
        const x = (time) => this.left + Math.min(Math.max(0, (time - this.view.from) / this.view.length), 1) * this.width;
        levels.forEach(([time, level], i) => {
            const end = i + 1 < levels.length ? levels[i + 1][0] : this.view.duration;
            if (level > 0) {
                context.globalAlpha = 0.1 + 0.08 * level;
                context.fillStyle = colour("moved");
                context.fillRect(x(time), 8, Math.max(1, x(end) - x(time)), bottom - 8);
            }
        });
        context.globalAlpha = 1;
        context.fillStyle = colour("change");
        for (const [time] of answers) {
            if (time >= this.view.from && time <= this.view.to) {
                context.fillRect(x(time) - 1, 2, 2, 6);
            }
        }
    }

    hover(event) {
        const box = this.canvas.getBoundingClientRect();
        const x = event.clientX - box.left - this.left;
        const i = this.at(this.view.from + (x / this.width) * this.view.length);
        if (x < 0 || i < 0) {
            this.tip.hidden = true;
            return;
        }
        const { series, scopes, times, idle } = this.memory;
        const list = element("dl");
        const add = (key, value) =>
            list.append(element("div", {}, element("dt", {}, element("bdi", {}, key)), element("dd", {}, value)));
        add("since", momentText(times[i]));
        this.used.filter((s) => series[s][i] > 0).forEach((s) => add(this.name(scopes[s]), exactBytes(series[s][i])));
        add("together", exactBytes(this.used.reduce((sum, s) => sum + series[s][i], 0)));
        if (idle[i] > 0) {
            add("idle in pools", bytesText(idle[i]));
        }
        this.tip.replaceChildren(element("div", { class: "described" }, list));
        showTip(this.tip, event.clientX, event.clientY);
    }
}
