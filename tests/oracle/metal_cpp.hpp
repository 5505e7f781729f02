/*
 * Tells what metal-cpp really sends. A generated file calls tell_method() for every method of its
 * classes: the compiler gives the types, and the selector is the one that arrives in objc_msgSend
 * when the method is called on an object that is not there (receive.c).
 */
#ifndef UMO_ORACLE_METAL_CPP_HPP
#define UMO_ORACLE_METAL_CPP_HPP

#define NS_PRIVATE_IMPLEMENTATION
#define MTL_PRIVATE_IMPLEMENTATION
#include <Foundation/Foundation.hpp>
#include <Metal/Metal.hpp>

#include "encode.hpp"

/* The selector of the last message (receive.c). */
extern "C" const char *oracle_received;

namespace oracle
{

/* A class that is only declared is none that metal-cpp describes. */
template <class T, class Enable> struct IsObject : std::false_type {
};
template <class T>
struct IsObject<T, std::enable_if_t<std::is_class_v<T> && (sizeof(T) > 0)>>
    : std::is_base_of<objc_object, T> {
};

UMO_ENCODE(SEL, ":");

template <> struct Encode<NS::Range> {
    static std::string text()
    {
        return "{_NSRange=" +
               encode_all<decltype(NS::Range::location), decltype(NS::Range::length)>() + "}";
    }
};
template <> struct Encode<MTL::Size> {
    static std::string text()
    {
        return "{?=" +
               encode_all<decltype(MTL::Size::width), decltype(MTL::Size::height),
                          decltype(MTL::Size::depth)>() +
               "}";
    }
};
template <> struct Encode<MTL::SizeAndAlign> {
    static std::string text()
    {
        return "{?=" +
               encode_all<decltype(MTL::SizeAndAlign::size), decltype(MTL::SizeAndAlign::align)>() +
               "}";
    }
};

/* Any value: nobody looks at it. */
template <class T> std::remove_reference_t<T> anything()
{
    using Value = std::remove_reference_t<T>;
    if constexpr (std::is_default_constructible_v<Value>) {
        return Value();
    } else {
        return Value(0, 0); /* a range */
    }
}

/* The method of class C whose type is R(A...): of the class ("+"), or of an object. */
template <class C, class F> struct Method;
template <class C, class R, class... A> struct Method<C, R(A...)> {
    static void tell_sent(const char *owner, const char *kind)
    {
        tell("method", kind, owner, oracle_received, encode_all<R, A...>(" "));
    }
    static void tell_method(const char *owner, R (*method)(A...))
    {
        oracle_received = "";
        (void)method(anything<A>()...);
        tell_sent(owner, "+");
    }
    static void tell_method(const char *owner, R (C::*method)(A...))
    {
        oracle_received = "";
        (void)(nobody()->*method)(anything<A>()...);
        tell_sent(owner, "-");
    }
    static void tell_method(const char *owner, R (C::*method)(A...) const)
    {
        oracle_received = "";
        (void)(nobody()->*method)(anything<A>()...);
        tell_sent(owner, "-");
    }

  private:
    /* Only its address is passed on. */
    static C *nobody()
    {
        static std::max_align_t memory;
        return reinterpret_cast<C *>(&memory);
    }
};

/* The fields of a struct in their order, with their places. */
#define UMO_FIELD(space, type, field)                                                              \
    tell("field", #space #type, #field, std::to_string(offsetof(space::type, field)),              \
         encode<decltype(space::type::field)>())

inline void tell_structs()
{
    UMO_FIELD(NS, Range, location);
    UMO_FIELD(NS, Range, length);
    UMO_FIELD(MTL, Size, width);
    UMO_FIELD(MTL, Size, height);
    UMO_FIELD(MTL, Size, depth);
    UMO_FIELD(MTL, SizeAndAlign, size);
    UMO_FIELD(MTL, SizeAndAlign, align);
    tell("size", "NSRange", std::to_string(sizeof(NS::Range)));
    tell("size", "MTLSize", std::to_string(sizeof(MTL::Size)));
    tell("size", "MTLSizeAndAlign", std::to_string(sizeof(MTL::SizeAndAlign)));
}

template <class R, class... A> void tell_function(const char *name, R (*)(A...))
{
    tell("function", name, encode_all<R, A...>(" "));
}

/* The functions, and the methods that are templates, which a scan of the definitions passes over.
 */
inline void tell_others()
{
    tell_function("MTLCopyAllDevices", &MTLCopyAllDevices);
    Method<NS::Referencing<NS::Object, objc_object>, NS::Object *()>::tell_method(
        "NSObject", &NS::Object::retain);
    Method<NS::Referencing<NS::Object, objc_object>, void()>::tell_method("NSObject",
                                                                          &NS::Object::release);
    Method<NS::Array, NS::Object *(NS::UInteger)>::tell_method("NSArray",
                                                               &NS::Array::object<NS::Object>);
}

} // namespace oracle

#endif
