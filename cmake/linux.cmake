# Toolchain: Linux with an old glibc, for wheels, by the compiler of PyPI's ziglang, which knows every glibc's symbols.
# scripts/wheel says what it needs: UMO_WHEEL_ARCH (x86_64 or aarch64), UMO_WHEEL_TOOLS (a folder with the compilers),
# UMO_WHEEL_PREFIX (a folder with the libraries that ours link).
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR ${UMO_WHEEL_ARCH})
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES UMO_WHEEL_ARCH UMO_WHEEL_TOOLS UMO_WHEEL_PREFIX)

set(CMAKE_C_COMPILER ${UMO_WHEEL_TOOLS}/linux-${UMO_WHEEL_ARCH}-cc)
set(CMAKE_CXX_COMPILER ${UMO_WHEEL_TOOLS}/linux-${UMO_WHEEL_ARCH}-c++)
set(CMAKE_AR ${UMO_WHEEL_TOOLS}/ar)
set(CMAKE_RANLIB ${UMO_WHEEL_TOOLS}/ranlib)

# Nothing of the machine that builds is of use, but for its programs.
set(CMAKE_FIND_ROOT_PATH ${UMO_WHEEL_PREFIX})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{PKG_CONFIG_LIBDIR} ${UMO_WHEEL_PREFIX}/lib/pkgconfig)
include_directories(SYSTEM ${UMO_WHEEL_PREFIX}/include)

# The symbols are split off afterwards (scripts/wheel), found again by the build's id.
set(CMAKE_C_FLAGS_RELEASE "-O2 -g -DNDEBUG" CACHE STRING "")
foreach(kind EXE SHARED MODULE)
    set(CMAKE_${kind}_LINKER_FLAGS_INIT "-Wl,--build-id=sha1")
endforeach()

# Nothing in the wheel is C++; trying that compiler out would build its library first.
set(CMAKE_CXX_COMPILER_ID_RUN TRUE)
set(CMAKE_CXX_COMPILER_FORCED TRUE)
