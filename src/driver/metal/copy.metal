// The copies that a blit does not take: at any offset, of any length, a byte a thread.
#include <metal_stdlib>
using namespace metal;

kernel void umo_copy_bytes(device uchar *to [[buffer(0)]], const device uchar *from [[buffer(1)]],
                           uint i [[thread_position_in_grid]])
{
    to[i] = from[i];
}
