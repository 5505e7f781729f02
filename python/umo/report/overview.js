// The strip above the timeline: saved bytes upwards, bytes that still moved downwards, and the part that is looked at.

class Overview {
    constructor(recording, view) {
        this.recording = recording;
        this.view = view;
        this.canvas = document.getElementById("overview");
        this.most = Math.max(1, ...recording.overview.moved, ...recording.overview.saved);
        this.grip = null;
        this.canvas.addEventListener("pointerdown", (event) => this.down(event));
        this.canvas.addEventListener("pointermove", (event) => this.move(event));
        this.canvas.addEventListener("pointerup", () => (this.grip = null));
        this.canvas.addEventListener("pointercancel", () => (this.grip = null));
        this.canvas.addEventListener("dblclick", () => view.all());
        view.listen(() => this.draw());
    }

    time(event) {
        const box = this.canvas.getBoundingClientRect();
        return ((event.clientX - box.left) / box.width) * this.view.duration;
    }

    // Inside the chosen part it is moved, elsewhere a new one is drawn.
    down(event) {
        const at = this.time(event);
        const inside = at > this.view.from && at < this.view.to && this.view.length < this.view.duration * 0.999;
        this.grip = { at, from: this.view.from, to: this.view.to, inside };
        this.canvas.setPointerCapture(event.pointerId);
    }

    move(event) {
        if (this.grip === null) {
            return;
        }
        const at = this.time(event);
        if (this.grip.inside) {
            const by = at - this.grip.at;
            this.view.set(this.grip.from + by, this.grip.to + by);
        } else if (Math.abs(at - this.grip.at) > this.view.duration / 500) {
            this.view.set(Math.min(at, this.grip.at), Math.max(at, this.grip.at));
        }
    }

    draw() {
        const width = this.canvas.parentElement.clientWidth;
        const height = 64;
        const context = prepare(this.canvas, width, height);
        const { moved, saved } = this.recording.overview;
        const middle = height / 2;
        // A root keeps small amounts visible beside large ones; the strip is for finding, not for reading off.
        const tall = (value) => (value > 0 ? Math.max(1, Math.sqrt(value / this.most) * (middle - 2)) : 0);
        const each = width / saved.length;
        for (let i = 0; i < saved.length; i++) {
            context.fillStyle = colour("saved");
            context.fillRect(i * each, middle - tall(saved[i]), Math.max(1, each), tall(saved[i]));
            context.fillStyle = colour("moved");
            context.fillRect(i * each, middle, Math.max(1, each), tall(moved[i]));
        }
        context.fillStyle = colour("faint");
        context.fillRect(0, middle - 0.5, width, 1);
        const left = (this.view.from / this.view.duration) * width;
        const right = (this.view.to / this.view.duration) * width;
        context.globalAlpha = 0.72;
        context.fillStyle = colour("paper");
        context.fillRect(0, 0, left, height);
        context.fillRect(right, 0, width - right, height);
        context.globalAlpha = 1;
        context.strokeStyle = colour("accent");
        context.lineWidth = 1.5;
        context.strokeRect(left + 0.75, 0.75, Math.max(2, right - left - 1.5), height - 1.5);
    }
}
