// The kernels of mac_probe. tests/msl compiles this very text for the fake Metal.
#include <metal_stdlib>
using namespace metal;

kernel void probe_xor(device const uint *from [[buffer(0)]], device uint *to [[buffer(1)]],
                      constant uint &key [[buffer(2)]], uint i [[thread_position_in_grid]])
{
    to[i] = from[i] ^ key;
}

// One word of each step, as a page is touched.
kernel void probe_touch(device const uint *words [[buffer(0)]], device uint *found [[buffer(1)]],
                        constant uint &step [[buffer(2)]], uint i [[thread_position_in_grid]])
{
    found[i] = words[i * step];
}

// In another order, or without one, other values come out.
kernel void probe_step(device uint *words [[buffer(0)]], constant uint &by [[buffer(1)]],
                       uint i [[thread_position_in_grid]])
{
    words[i] = words[i] * 3u + by;
}

kernel void probe_one(device uint *words [[buffer(0)]], constant uint &value [[buffer(1)]])
{
    words[0] = value;
}

// Reads a byte, takes its time, and writes that one byte: what lies beside it is the CPU's meanwhile.
kernel void probe_poke(device uchar *bytes [[buffer(0)]], constant uint &step [[buffer(1)]],
                       constant uint &value [[buffer(2)]], constant uint &rounds [[buffer(3)]],
                       uint i [[thread_position_in_grid]])
{
    uint at = i * step + step / 2u;
    uint x = bytes[at] | 1u;
    for (uint round = 0; round < rounds; round++) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
    }
    bytes[at] = static_cast<uchar>(x != 0u ? value : value + 1u);
}
