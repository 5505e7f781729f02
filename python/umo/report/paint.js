// Draws lanes. Where a lane has few rows in view each is drawn; where it has many, its level is: how busy each 4096th of
// the time was (pack.py), so that a frame costs the same however many events there are.

const MANY = 2500; // rows of one lane in view that are still drawn one by one
const SPANS = new Set(["request", "host", "device"]);
const SPAN_LANES = new Set(["requests", "runs", "buffers"]);
const ALPHAS = 8;

class Painter {
    constructor(recording, view) {
        this.recording = recording;
        this.view = view;
        this.hidden = new Set();
        this.depths = new Map();
        this.binWidth = (recording.duration_ns + 1) / recording.bins;
        this.isSpan = recording.className.map((name) => SPANS.has(name));
        this.recolour();
    }

    recolour() {
        this.colour = this.recording.className.map((name) => colour(name));
    }

    // Rows of a lane that may be in view: [from, to).
    inView(lane) {
        const { first, start, longest } = this.recording;
        const from = lowerBound(start, first[lane], first[lane + 1], this.view.from - longest[lane]);
        return [from, lowerBound(start, from, first[lane + 1], this.view.to)];
    }

    // Spans of a lane that overlap lie one below the other: the line of each row, and how many lines there are.
    depth(lane) {
        if (!this.depths.has(lane)) {
            const { first, start, duration } = this.recording;
            const lines = new Uint8Array(first[lane + 1] - first[lane]);
            const busy = [-1, -1, -1, -1];
            let most = 0;
            for (let i = first[lane]; i < first[lane + 1]; i++) {
                if (this.isSpan[this.recording.class[i]]) {
                    let line = busy.findIndex((end) => end <= start[i]);
                    line = line < 0 ? busy.length - 1 : line;
                    busy[line] = Math.max(busy[line], start[i] + duration[i]);
                    lines[i - first[lane]] = line;
                    most = Math.max(most, line);
                }
            }
            this.depths.set(lane, { lines, count: most + 1 });
        }
        return this.depths.get(lane);
    }

    // Where on the lane a class is drawn: spans above, what moved or was saved in a strip below. Copies have no spans:
    // those avoided are above, those made below, as in the strip over the timeline.
    zone(lane, number, top, height) {
        const what = this.recording.lanes[lane].what;
        const name = this.recording.className[number];
        const inner = height - 6;
        if (what === "copies") {
            return [top + 3 + (name === "moved" ? inner / 2 : 0), inner / 2];
        }
        if (!SPAN_LANES.has(what)) {
            return [top + 3, inner];
        }
        if (name === "moved" || name === "saved") {
            return [top + height - 8, 5];
        }
        if (name === "memory") {
            return [top + 3, 3];
        }
        return what === "buffers" ? [top + 3, inner - 6] : [top + 3, inner];
    }

    lane(context, lane, top, height, width) {
        const [from, to] = this.inView(lane);
        const perPixel = this.view.length / width;
        const incomplete = this.view.from < this.recording.since_ns;
        if (incomplete || (to - from > MANY && perPixel > this.binWidth / 4)) {
            this.laneLevels(context, lane, top, height, width);
        } else {
            this.laneRows(context, lane, from, to, top, height, width);
        }
    }

    laneLevels(context, lane, top, height, width) {
        const { levels, lineOf, bins, className } = this.recording;
        const { from, length } = this.view;
        for (let number = className.length - 1; number >= 0; number--) {
            const line = lineOf.get(lane * className.length + number);
            if (line === undefined || this.hidden.has(className[number])) {
                continue;
            }
            const [y, tall] = this.zone(lane, number, top, height);
            context.fillStyle = this.colour[number];
            let run = 0;
            let runFrom = 0;
            for (let x = 0; x <= width; x++) {
                let most = 0;
                if (x < width) {
                    const low = Math.floor((from + (x / width) * length) / this.binWidth);
                    const high = Math.max(low + 1, Math.ceil((from + ((x + 1) / width) * length) / this.binWidth));
                    for (let bin = low; bin < high && bin < bins; bin++) {
                        most = Math.max(most, levels[line * bins + bin]);
                    }
                }
                const alpha = Math.ceil((most * ALPHAS) / 255);
                if (alpha !== run) {
                    if (run > 0) {
                        context.globalAlpha = 0.25 + (0.75 * run) / ALPHAS;
                        context.fillRect(runFrom, y, x - runFrom, tall);
                    }
                    run = alpha;
                    runFrom = x;
                }
            }
        }
        context.globalAlpha = 1;
    }

    laneRows(context, lane, from, to, top, height, width) {
        const { start, duration, class: classOf, className, first } = this.recording;
        const scale = width / this.view.length;
        const depth = this.depth(lane);
        const paths = className.map(() => []);
        const last = new Float64Array(className.length * 4).fill(-10);
        for (let i = from; i < to; i++) {
            const number = classOf[i];
            const left = Math.max(-2, (start[i] - this.view.from) * scale);
            const right = Math.min(width + 2, (start[i] + duration[i] - this.view.from) * scale);
            const line = this.isSpan[number] ? depth.lines[i - first[lane]] : 0;
            // What would fall on the same pixel as its neighbour is not drawn again.
            if (right < 0 || (right - last[number * 4 + line] < 1 && right - left < 1)) {
                continue;
            }
            last[number * 4 + line] = right;
            paths[number].push(left, Math.max(1.5, right - left), line);
        }
        for (let number = className.length - 1; number >= 0; number--) {
            if (paths[number].length && !this.hidden.has(className[number])) {
                const lines = this.isSpan[number] ? depth.count : 1;
                this.fill(context, paths[number], number, this.zone(lane, number, top, height), lines);
            }
        }
    }

    fill(context, path, number, [y, tall], lines) {
        const each = (tall - (lines - 1)) / lines;
        context.fillStyle = this.colour[number];
        context.beginPath();
        if (this.recording.className[number] === "change") {
            const middle = y + tall / 2;
            for (let at = 0; at < path.length; at += 3) {
                const x = path[at];
                context.moveTo(x, middle - 6);
                context.lineTo(x + 5, middle);
                context.lineTo(x, middle + 6);
                context.lineTo(x - 5, middle);
                context.closePath();
            }
        } else {
            for (let at = 0; at < path.length; at += 3) {
                context.rect(path[at], y + path[at + 2] * (each + 1), path[at + 1], each);
            }
        }
        context.fill();
    }

    // The row under a point of a lane: one that is drawn at this height before others, a short one before a long one, at
    // most 5 pixels away.
    find(lane, x, width, y, height) {
        const perPixel = this.view.length / width;
        const time = this.view.from + x * perPixel;
        const { first, start, duration, longest, class: classOf, className } = this.recording;
        const near = 5 * perPixel;
        const from = lowerBound(start, first[lane], first[lane + 1], time - near - longest[lane]);
        const to = lowerBound(start, from, first[lane + 1], time + near);
        const found = { rows: [], count: 0, best: -1 };
        const elsewhere = className.map((_, number) => {
            const [top, tall] = this.zone(lane, number, 0, height);
            return y < top - 1 || y > top + tall + 1 ? 1000 : 0;
        });
        let best = Infinity;
        for (let i = from; i < to; i++) {
            if (start[i] + duration[i] < time - near || this.hidden.has(className[classOf[i]])) {
                continue;
            }
            found.count++;
            const away = Math.max(0, start[i] - time, time - start[i] - duration[i]);
            const score = away * 4 + Math.max(duration[i], perPixel) + elsewhere[classOf[i]] * perPixel;
            if (score < best) {
                best = score;
                found.best = i;
            }
            if (found.rows.length < 2000) {
                found.rows.push(i);
            }
        }
        return found;
    }
}
