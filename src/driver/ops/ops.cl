// The operations' kernels in OpenCL C; common.h is put in front. Memories are bound whole and offsets come in the plan,
// since OpenCL binds an object only at multiples of what the device asks. A work item takes every
// get_global_size(0)-th word, so that neighbours touch neighbouring words whatever the size of the grid.

// Calls for the piece of this row, which is known only now.
#define OF_PIECE(p, a0, a1, a2, a3, a4, a5, a6, a7) \
    ((p) < 4 ? ((p) < 2 ? ((p) == 0 ? (a0) : (a1)) : ((p) == 2 ? (a2) : (a3))) \
             : ((p) < 6 ? ((p) == 4 ? (a4) : (a5)) : ((p) == 6 ? (a6) : (a7))))

__kernel void umo_move(__global const uchar *f0, __global const uchar *f1, __global const uchar *f2,
                       __global const uchar *f3, __global const uchar *f4, __global const uchar *f5,
                       __global const uchar *f6, __global const uchar *f7, __global uchar *t0,
                       __global uchar *t1, __global uchar *t2, __global uchar *t3,
                       __global uchar *t4, __global uchar *t5, __global uchar *t6,
                       __global uchar *t7, const move_plan plan)
{
    const size_t item = get_global_id(0);
    const size_t items = get_global_size(0);
    const uint p = (uint)get_global_id(1);
    __global const uchar *from = OF_PIECE(p, f0, f1, f2, f3, f4, f5, f6, f7) + plan.from[p];
    __global uchar *to = OF_PIECE(p, t0, t1, t2, t3, t4, t5, t6, t7) + plan.to[p];
    const ulong words = plan.words[p];
    const uint head = plan.head[p];
    const uint width = plan.width[p];
    if (item < head) {
        to[item] = from[item];
    }
    from += head;
    to += head;
    if (width == 16) {
        for (ulong i = item; i < words; i += items) {
            ((__global uint4 *)to)[i] = ((__global const uint4 *)from)[i];
        }
    } else if (width == 4) {
        for (ulong i = item; i < words; i += items) {
            ((__global uint *)to)[i] = ((__global const uint *)from)[i];
        }
    } else {
        for (ulong i = item; i < words; i += items) {
            to[i] = from[i];
        }
    }
    from += words * width;
    to += words * width;
    if (item < plan.tail[p]) {
        to[item] = from[item];
    }
}

__kernel void umo_fill(__global uchar *memory, const fill_plan plan)
{
    const size_t item = get_global_id(0);
    const size_t items = get_global_size(0);
    __global uchar *to = memory + plan.at;
    if (item < plan.head) {
        to[item] = (uchar)(plan.pattern[item / 4] >> item % 4 * 8);
    }
    to += plan.head;
    const uint4 word = (uint4)(plan.words[0], plan.words[1], plan.words[2], plan.words[3]);
    for (ulong i = item; i < plan.count; i += items) {
        ((__global uint4 *)to)[i] = word;
    }
    to += plan.count * 16;
    if (item < plan.tail) {
        to[item] = (uchar)(plan.words[item / 4] >> item % 4 * 8);
    }
}

__kernel void umo_convert(__global const uchar *source, __global uchar *target,
                          const convert_plan plan)
{
    const size_t items = get_global_size(0);
    __global const uchar *from = source + plan.from;
    __global uchar *to = target + plan.to;
    for (ulong i = get_global_id(0); i < plan.count; i += items) {
        uint bits;
        if (plan.from_type == TYPE_FP32) {
            bits = ((__global const uint *)from)[i];
        } else if (plan.from_type == TYPE_UINT8) {
            bits = from[i];
        } else if (plan.from_type == TYPE_INT8) {
            bits = (uint)(int)(char)from[i];
        } else {
            bits = ((__global const ushort *)from)[i];
        }
        bits = element_convert(bits, plan.from_type, plan.to_type, plan.scale, plan.bias);
        if (plan.to_type == TYPE_FP32) {
            ((__global uint *)to)[i] = bits;
        } else if (plan.to_type == TYPE_UINT8 || plan.to_type == TYPE_INT8) {
            to[i] = (uchar)bits;
        } else {
            ((__global ushort *)to)[i] = (ushort)bits;
        }
    }
}
