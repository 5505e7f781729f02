// Reads the recording out of the page: base64, deflated, columns of small numbers (pack.py).
"use strict";

async function inflate(text) {
    const bytes = Uint8Array.fromBase64
        ? Uint8Array.fromBase64(text)
        : Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
}

// A column's bytes lie plane by plane, the lowest first.
function readColumn(raw, base, column) {
    const { at, count, planes, signed } = column;
    if (planes === 1 && !signed) {
        return raw.subarray(base + at, base + at + count);
    }
    const values = planes <= 4 && !signed ? new Uint32Array(count) : new Float64Array(count);
    let scale = 1;
    for (let plane = 0; plane < planes; plane++, scale *= 256) {
        const from = base + at + plane * count;
        for (let i = 0; i < count; i++) {
            const byte = raw[from + i];
            if (byte !== 0) {
                values[i] += byte * scale;
            }
        }
    }
    if (signed) {
        for (let i = 0; i < count; i++) {
            const value = values[i];
            values[i] = value % 2 === 0 ? value / 2 : -(value + 1) / 2;
        }
    }
    return values;
}

// Sums differences up; `first` says where each lane begins anew.
function summedUp(column, first) {
    const values = new Float64Array(column.length);
    for (let lane = 0; lane + 1 < first.length; lane++) {
        let sum = 0;
        for (let i = first[lane]; i < first[lane + 1]; i++) {
            sum += column[i];
            values[i] = sum;
        }
    }
    return values;
}

// A property that is worked out when it is first read.
function later(object, name, make) {
    Object.defineProperty(object, name, {
        configurable: true,
        get() {
            const value = make();
            Object.defineProperty(object, name, { value });
            return value;
        },
    });
}

async function readRecording() {
    const raw = await inflate(document.getElementById("data").textContent.trim());
    const length = new DataView(raw.buffer).getUint32(0, true);
    const head = JSON.parse(new TextDecoder().decode(raw.subarray(4, 4 + length)));
    const get = (name) => readColumn(raw, 4 + length, head.columns[name]);
    const first = head.first;
    const whole = (column) => summedUp(column, [0, column.length]);
    const recording = {
        ...head,
        start: summedUp(get("start"), first),
        duration: get("duration"),
        class: get("class"),
        levels: get("levels"),
        className: head.classes,
    };
    // What only one row's words need is read when somebody asks for the first.
    later(recording, "combination", () => get("combination"));
    later(recording, "size", () => get("size"));
    later(recording, "offset", () => get("offset"));
    later(recording, "buffer", () => summedUp(get("buffer"), first));
    later(recording, "number", () => summedUp(get("number"), first));
    later(recording, "fence", () => summedUp(get("fence"), first));
    recording.memory.times = whole(get("memory_times"));
    recording.memory.idle = whole(get("memory_idle"));
    recording.memory.series = head.memory.scopes.map((_, i) => whole(get(`memory_${i}`)));
    recording.lineOf = new Map(head.lines.map((line, i) => [line, i]));
    // The longest row of each lane: how far before a view something may begin that reaches into it.
    recording.longest = head.lanes.map((_, lane) => {
        let longest = 0;
        for (let i = first[lane]; i < first[lane + 1]; i++) {
            longest = Math.max(longest, recording.duration[i]);
        }
        return longest;
    });
    return recording;
}

// Sizes are places in a list, unless there were too many.
function sizeOf(recording, i) {
    return recording.sizes ? Number(recording.sizes[recording.size[i]]) : recording.size[i];
}

// The fields of one row, by name.
function rowOf(recording, i) {
    const row = { start: recording.start[i], duration: recording.duration[i], buffer: recording.buffer[i] };
    recording.repeated.forEach((name, at) => {
        row[name] = recording.combinations[at][recording.combination[i]];
    });
    row.size = sizeOf(recording, i);
    row.offset = recording.offsets ? Number(recording.offsets[recording.offset[i]]) : recording.offset[i];
    row.number = recording.number[i];
    row.fence = recording.fence[i];
    row.kindName = recording.kinds[row.kind] || `kind ${row.kind}`;
    return row;
}

// The first index in [low, high) whose value is at least `wanted`.
function lowerBound(values, low, high, wanted) {
    while (low < high) {
        const middle = (low + high) >>> 1;
        if (values[middle] < wanted) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}
