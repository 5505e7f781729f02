// The operations' kernels in Metal's language; common.h is put in front. They are those of ops.cl, word for word where
// the languages allow it: memories are bound whole and offsets come in the plan, and a thread takes every items-th word.

#define OF_PIECE(p, a0, a1, a2, a3, a4, a5, a6, a7) \
    ((p) < 4 ? ((p) < 2 ? ((p) == 0 ? (a0) : (a1)) : ((p) == 2 ? (a2) : (a3))) \
             : ((p) < 6 ? ((p) == 4 ? (a4) : (a5)) : ((p) == 6 ? (a6) : (a7))))

kernel void umo_move(device const uchar *f0 [[buffer(0)]], device const uchar *f1 [[buffer(1)]],
                     device const uchar *f2 [[buffer(2)]], device const uchar *f3 [[buffer(3)]],
                     device const uchar *f4 [[buffer(4)]], device const uchar *f5 [[buffer(5)]],
                     device const uchar *f6 [[buffer(6)]], device const uchar *f7 [[buffer(7)]],
                     device uchar *t0 [[buffer(8)]], device uchar *t1 [[buffer(9)]],
                     device uchar *t2 [[buffer(10)]], device uchar *t3 [[buffer(11)]],
                     device uchar *t4 [[buffer(12)]], device uchar *t5 [[buffer(13)]],
                     device uchar *t6 [[buffer(14)]], device uchar *t7 [[buffer(15)]],
                     constant move_plan &plan [[buffer(16)]],
                     uint2 thread_at [[thread_position_in_grid]],
                     uint2 grid [[threads_per_grid]])
{
    const uint item = thread_at.x;
    const uint items = grid.x;
    const uint p = thread_at.y;
    device const uchar *from = OF_PIECE(p, f0, f1, f2, f3, f4, f5, f6, f7) + plan.from[p];
    device uchar *to = OF_PIECE(p, t0, t1, t2, t3, t4, t5, t6, t7) + plan.to[p];
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
            ((device uint4 *)to)[i] = ((device const uint4 *)from)[i];
        }
    } else if (width == 4) {
        for (ulong i = item; i < words; i += items) {
            ((device uint *)to)[i] = ((device const uint *)from)[i];
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

kernel void umo_fill(device uchar *memory [[buffer(0)]], constant fill_plan &plan [[buffer(1)]],
                     uint item [[thread_position_in_grid]], uint items [[threads_per_grid]])
{
    device uchar *to = memory + plan.at;
    if (item < plan.head) {
        to[item] = (uchar)(plan.pattern[item / 4] >> item % 4 * 8);
    }
    to += plan.head;
    const uint4 word = uint4(plan.words[0], plan.words[1], plan.words[2], plan.words[3]);
    for (ulong i = item; i < plan.count; i += items) {
        ((device uint4 *)to)[i] = word;
    }
    to += plan.count * 16;
    if (item < plan.tail) {
        to[item] = (uchar)(plan.words[item / 4] >> item % 4 * 8);
    }
}

kernel void umo_convert(device const uchar *source [[buffer(0)]], device uchar *target [[buffer(1)]],
                        constant convert_plan &plan [[buffer(2)]],
                        uint item [[thread_position_in_grid]], uint items [[threads_per_grid]])
{
    device const uchar *from = source + plan.from;
    device uchar *to = target + plan.to;
    for (ulong i = item; i < plan.count; i += items) {
        uint bits;
        if (plan.from_type == TYPE_FP32) {
            bits = ((device const uint *)from)[i];
        } else if (plan.from_type == TYPE_UINT8) {
            bits = from[i];
        } else if (plan.from_type == TYPE_INT8) {
            bits = (uint)(int)(char)from[i];
        } else {
            bits = ((device const ushort *)from)[i];
        }
        bits = element_convert(bits, plan.from_type, plan.to_type, plan.scale, plan.bias);
        if (plan.to_type == TYPE_FP32) {
            ((device uint *)to)[i] = bits;
        } else if (plan.to_type == TYPE_UINT8 || plan.to_type == TYPE_INT8) {
            to[i] = (uchar)bits;
        } else {
            ((device ushort *)to)[i] = (ushort)bits;
        }
    }
}
