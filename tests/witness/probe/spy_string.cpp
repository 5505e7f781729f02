// Copies through libstdc++: std::string's append is code of that library, but the copy is ours.
#include <cstddef>
#include <string>

extern "C" __attribute__((visibility("default"))) std::size_t string_grow(const char *text,
                                                                          std::size_t size_bytes);

std::size_t string_grow(const char *text, std::size_t size_bytes)
{
    std::string whole;
    whole.reserve(size_bytes);
    whole.append(text, size_bytes);
    return whole.size();
}
