# Toolchain: macOS, built on Linux by the compiler of PyPI's ziglang, which brings Apple's public headers and the list
# of libSystem's symbols; no SDK. scripts/macos says what it needs: UMO_MACOS_ARCH (arm64 or x86_64), UMO_MACOS_TOOLS (a
# folder with the compilers), UMO_MACOS_PREFIX (a folder with the libraries that ours link).
set(CMAKE_SYSTEM_NAME Darwin)
set(CMAKE_SYSTEM_PROCESSOR ${UMO_MACOS_ARCH})
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES UMO_MACOS_ARCH UMO_MACOS_TOOLS UMO_MACOS_PREFIX)

set(CMAKE_C_COMPILER ${UMO_MACOS_TOOLS}/${UMO_MACOS_ARCH}-cc)
set(CMAKE_CXX_COMPILER ${UMO_MACOS_TOOLS}/${UMO_MACOS_ARCH}-c++)
set(CMAKE_AR ${UMO_MACOS_TOOLS}/ar)
set(CMAKE_RANLIB ${UMO_MACOS_TOOLS}/ranlib)
find_program(CMAKE_INSTALL_NAME_TOOL NAMES llvm-install-name-tool-14 llvm-install-name-tool REQUIRED)

# The compiler knows its headers, its target and its oldest system; CMake would ask Xcode for them.
set(CMAKE_OSX_SYSROOT "" CACHE STRING "" FORCE)
set(CMAKE_OSX_DEPLOYMENT_TARGET "" CACHE STRING "" FORCE)

# Nothing of the machine that builds is of use, but for its programs.
set(CMAKE_FIND_ROOT_PATH ${UMO_MACOS_PREFIX})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{PKG_CONFIG_LIBDIR} ${UMO_MACOS_PREFIX}/lib/pkgconfig)
include_directories(SYSTEM ${UMO_MACOS_PREFIX}/include)

# Debug information and the table of local symbols hold paths and times of this machine. For C++ CMake has no rules, as
# it does not try that compiler out.
set(CMAKE_C_FLAGS_RELEASE "-O2 -g0 -DNDEBUG" CACHE STRING "")
set(CMAKE_CXX_FLAGS_INIT "-std=c++17")
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -g0 -DNDEBUG" CACHE STRING "")
foreach(kind EXE SHARED MODULE)
    set(CMAKE_${kind}_LINKER_FLAGS_INIT "-s")
endforeach()

set(CMAKE_BUILD_RPATH_USE_ORIGIN ON)

# To see what the compiler can do it need not link. Trying C++ out would build its library first, for a minute; one
# test is C++, and builds it when it is linked.
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
set(CMAKE_CXX_COMPILER_ID_RUN TRUE)
set(CMAKE_CXX_COMPILER_FORCED TRUE)

set(CMAKE_USER_MAKE_RULES_OVERRIDE ${CMAKE_CURRENT_LIST_DIR}/macos_rules.cmake)
