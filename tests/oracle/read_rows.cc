/*
 * Tells what the compiler understands of the rows of metal_api.h. The copy of the header that is
 * included has its two pointer typedefs made into types of their own, so that an object, a
 * selector and a plain pointer are told apart.
 */
#include UMO_ORACLE_HEADER

#include "encode.hpp"

namespace oracle
{

template <class T, class Enable> struct IsObject : std::is_same<T, oracle_object> {
};

UMO_ENCODE(umo_selector, ":");

/* The fields of a struct in their order, with their places. */
#define FIELD(type, field)                                                                         \
    tell("field", #type, #field, std::to_string(offsetof(type, field)),                            \
         encode<decltype(type::field)>())

template <> struct Encode<umo_ns_range> {
    static std::string text()
    {
        return "{_NSRange=" +
               encode_all<decltype(umo_ns_range::location), decltype(umo_ns_range::length)>() + "}";
    }
};
template <> struct Encode<umo_mtl_size> {
    static std::string text()
    {
        return "{?=" +
               encode_all<decltype(umo_mtl_size::width), decltype(umo_mtl_size::height),
                          decltype(umo_mtl_size::depth)>() +
               "}";
    }
};
template <> struct Encode<umo_mtl_size_and_align> {
    static std::string text()
    {
        return "{?=" +
               encode_all<decltype(umo_mtl_size_and_align::size),
                          decltype(umo_mtl_size_and_align::align)>() +
               "}";
    }
};

/* A call's types: the result, then the parameters, parted by spaces. */
template <class F> struct Call;
template <class R, class... A> struct Call<R (*)(A...)> {
    static std::string text()
    {
        return encode_all<R, A...>(" ");
    }
};

/* The block that a function makes, by the invoke function that it is given. */
template <class F> struct Block;
template <class R, class... A>
struct Block<umo_metal_block (*)(const umo_metal_api *, R (*)(umo_metal_block *, A...), void *)> {
    static std::string text()
    {
        return encode<R>() + "@?" + encode_all<A...>();
    }
};

} // namespace oracle

using oracle::encode;
using oracle::tell;

int main()
{
#define MESSAGE(field, owner, selector, encoding, result, parameters)                              \
    tell("message", #field, owner, selector, encoding,                                             \
         oracle::Call<umo_metal_##field##_fn>::text(), #result, #parameters);
    UMO_METAL_MESSAGES(MESSAGE)
#define CLASS(field, name) tell("class", #field, name);
    UMO_METAL_CLASSES(CLASS)
#define CONSTANT(name, apples, value)                                                              \
    tell("constant", #name, #apples, std::to_string(static_cast<long long>(value)));
    UMO_METAL_CONSTANTS(CONSTANT)
    FIELD(umo_ns_range, location);
    FIELD(umo_ns_range, length);
    FIELD(umo_mtl_size, width);
    FIELD(umo_mtl_size, height);
    FIELD(umo_mtl_size, depth);
    FIELD(umo_mtl_size_and_align, size);
    FIELD(umo_mtl_size_and_align, align);
    tell("size", "umo_ns_range", std::to_string(sizeof(umo_ns_range)));
    tell("size", "umo_mtl_size", std::to_string(sizeof(umo_mtl_size)));
    tell("size", "umo_mtl_size_and_align", std::to_string(sizeof(umo_mtl_size_and_align)));
    tell("block", "completed", oracle::Block<decltype(&umo_metal_completed_block)>::text());
    tell("block", "deallocator", oracle::Block<decltype(&umo_metal_deallocator_block)>::text());
    tell("function", "MTLCopyAllDevices",
         oracle::Call<decltype(umo_metal_api::copy_all_devices)>::text());
    return 0;
}
