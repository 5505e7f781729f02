// The part of the time that is looked at, shared by all charts. Whoever draws listens; draws are one a frame.

class View {
    constructor(duration) {
        this.duration = Math.max(1, duration);
        this.from = 0;
        this.to = this.duration;
        this.listeners = [];
        this.waiting = false;
    }

    listen(draw) {
        this.listeners.push(draw);
    }

    changed() {
        if (!this.waiting) {
            this.waiting = true;
            requestAnimationFrame(() => {
                this.waiting = false;
                this.listeners.forEach((draw) => draw());
            });
        }
    }

    set(from, to) {
        const least = Math.min(200, this.duration);
        const length = Math.min(this.duration, Math.max(least, to - from));
        const middle = (from + to) / 2;
        this.from = Math.min(Math.max(0, middle - length / 2), this.duration - length);
        this.to = this.from + length;
        this.changed();
    }

    get length() {
        return this.to - this.from;
    }

    // Longer by the factor; `at` keeps its place.
    zoom(factor, at = (this.from + this.to) / 2) {
        const length = Math.min(this.duration, Math.max(Math.min(200, this.duration), this.length * factor));
        const share = (at - this.from) / this.length;
        this.set(at - share * length, at - share * length + length);
    }

    pan(share) {
        const by = share * this.length;
        const length = this.length;
        const from = Math.min(Math.max(0, this.from + by), this.duration - length);
        this.set(from, from + length);
    }

    all() {
        this.set(0, this.duration);
    }

    // Makes a moment seen without another scale.
    show(start, end) {
        if (end < this.from || start > this.to) {
            const half = this.length / 2;
            this.set((start + end) / 2 - half, (start + end) / 2 + half);
        }
    }
}

// Sizes a canvas for the screen's pixels; gives its context and its size in CSS pixels.
function prepare(canvas, width, height) {
    const ratio = window.devicePixelRatio || 1;
    const wide = Math.max(1, Math.round(width * ratio));
    const high = Math.max(1, Math.round(height * ratio));
    if (canvas.width !== wide || canvas.height !== high) {
        canvas.width = wide;
        canvas.height = high;
        canvas.style.width = `${width}px`;
        canvas.style.height = `${height}px`;
    }
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    return context;
}

// Colours come from the style sheet, so that light, dark and print have one source. Asking is slow, so they are kept.
const colour = (() => {
    const known = new Map();
    const probe = document.createElement("i");
    const ask = (name) => {
        if (!known.has(name)) {
            document.body.append(probe);
            probe.style.color = `var(--${name})`;
            known.set(name, getComputedStyle(probe).color);
            probe.remove();
        }
        return known.get(name);
    };
    ask.forget = () => known.clear();
    return ask;
})();

// Drags, pinches, double-clicks and the wheel over an element whose left edge is `left()` and width `width()`.
class Gestures {
    constructor(target, view, left, width, tapped) {
        this.view = view;
        this.left = left;
        this.width = width;
        this.pointers = new Map();
        this.tapped = tapped;
        this.travelled = 0;
        target.addEventListener("pointerdown", (event) => this.down(target, event));
        target.addEventListener("pointermove", (event) => this.move(target, event));
        for (const name of ["pointerup", "pointercancel"]) {
            target.addEventListener(name, (event) => this.up(event));
        }
        target.addEventListener("dblclick", (event) => this.view.zoom(event.shiftKey ? 4 : 0.25, this.time(event)));
        target.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    }

    time(event) {
        return this.view.from + ((event.clientX - this.left()) / this.width()) * this.view.length;
    }

    down(target, event) {
        if (event.button !== 0) {
            return;
        }
        this.pointers.set(event.pointerId, event);
        this.travelled = 0;
    }

    move(target, event) {
        const before = this.pointers.get(event.pointerId);
        if (before === undefined) {
            return;
        }
        this.travelled += Math.abs(event.clientX - before.clientX) + Math.abs(event.clientY - before.clientY);
        if (this.travelled > 4 && !target.hasPointerCapture(event.pointerId)) {
            target.setPointerCapture(event.pointerId);
        }
        if (this.pointers.size === 1) {
            this.view.pan((before.clientX - event.clientX) / this.width());
        } else {
            const other = [...this.pointers.values()].find((pointer) => pointer.pointerId !== event.pointerId);
            const was = Math.abs(before.clientX - other.clientX);
            const is = Math.abs(event.clientX - other.clientX);
            const middle = { clientX: (event.clientX + other.clientX) / 2 };
            this.view.zoom(Math.max(8, was) / Math.max(8, is), this.time(middle));
        }
        this.pointers.set(event.pointerId, event);
    }

    up(event) {
        const known = this.pointers.delete(event.pointerId);
        if (known && event.type === "pointerup" && this.travelled <= 4) {
            this.tapped(event);
        }
    }

    get dragging() {
        return this.pointers.size > 0 && this.travelled > 4;
    }

    // The page scrolls as ever; with Ctrl (which a pinch on a touch pad sends as well) it zooms.
    wheel(event) {
        if (event.ctrlKey || event.metaKey) {
            event.preventDefault();
            this.view.zoom(2 ** (Math.max(-100, Math.min(100, event.deltaY)) / 100), this.time(event));
        } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
            event.preventDefault();
            this.view.pan((event.deltaX || event.deltaY) / this.width());
        }
    }
}
