/*
 * The Objective-C type encoding of a C or C++ type, made by the compiler that knows the type: what
 * Apple's clang writes for @encode on arm64, with the types of a block's call in <>.
 *
 * Who includes this says with IsObject which types are Objective-C objects, and adds encodings of
 * his own structs.
 */
#ifndef UMO_ORACLE_ENCODE_HPP
#define UMO_ORACLE_ENCODE_HPP

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <type_traits>

namespace oracle
{

/* True for a class whose instances are objects: who includes this defines it. */
template <class T, class Enable = void> struct IsObject;

/* A type that has no encoding: it agrees with nothing. */
template <class T, class Enable = void> struct Encode {
    static std::string text()
    {
        return "?";
    }
};

template <class T> std::string encode()
{
    return Encode<std::remove_cv_t<T>>::text();
}

#define UMO_ENCODE(type, letter)                                                                   \
    template <> struct Encode<type> {                                                              \
        static std::string text()                                                                  \
        {                                                                                          \
            return letter;                                                                         \
        }                                                                                          \
    }

UMO_ENCODE(void, "v");
UMO_ENCODE(bool, "B");
UMO_ENCODE(char, "c");
UMO_ENCODE(signed char, "c");
UMO_ENCODE(unsigned char, "C");
UMO_ENCODE(short, "s");
UMO_ENCODE(unsigned short, "S");
UMO_ENCODE(int, "i");
UMO_ENCODE(unsigned int, "I");
UMO_ENCODE(long, "q");
UMO_ENCODE(unsigned long, "Q");
UMO_ENCODE(long long, "q");
UMO_ENCODE(unsigned long long, "Q");
UMO_ENCODE(float, "f");
UMO_ENCODE(double, "d");

template <class T> struct Encode<T, std::enable_if_t<std::is_enum_v<T>>> {
    static std::string text()
    {
        return encode<std::underlying_type_t<T>>();
    }
};

/* C's strings have a letter of their own. */
template <> struct Encode<char *> {
    static std::string text()
    {
        return "*";
    }
};
template <> struct Encode<const char *> {
    static std::string text()
    {
        return "r*";
    }
};

template <class T> struct Encode<T *, std::enable_if_t<!std::is_function_v<T>>> {
    static std::string text()
    {
        using Bare = std::remove_cv_t<T>;
        if constexpr (IsObject<Bare>::value) {
            return "@";
        } else {
            return (std::is_const_v<T> ? "r^" : "^") + encode<Bare>();
        }
    }
};

/* The encodings of some types, one after the other. */
template <class... T> std::string encode_all(const char *between = "")
{
    std::string text;
    ((text += text.empty() ? "" : between, text += encode<T>()), ...);
    return text;
}

#ifdef __BLOCKS__
template <class R, class... A> struct Encode<R (^)(A...)> {
    static std::string text()
    {
        return "@?<" + encode<R>() + "@?" + encode_all<A...>() + ">";
    }
};
#endif

/* One line of output: words parted by tabs, the first says what the line tells. */
template <class... Words> void tell(const char *kind, const Words &...words)
{
    std::string line = kind;
    ((line += '\t', line += words), ...);
    std::puts(line.c_str());
}

} // namespace oracle

#endif
