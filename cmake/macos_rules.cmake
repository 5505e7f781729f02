# Read after CMake's own rules for Darwin, to take back what this compiler cannot do, and what they conclude from the
# missing SDK.

# It makes no bundles. dlopen, which is how modules are used, does not care.
foreach(language C CXX)
    set(CMAKE_SHARED_LIBRARY_CREATE_${language}_FLAGS "-shared")
    set(CMAKE_SHARED_MODULE_CREATE_${language}_FLAGS "-shared")
    set(CMAKE_SHARED_LIBRARY_RUNTIME_${language}_FLAG "-Wl,-rpath,")
endforeach()
set(CMAKE_SHARED_MODULE_SUFFIX ".dylib")
unset(CMAKE_LINK_DEPENDENT_LIBRARY_FILES)

# So that what is built finds libumo beside it, wherever the folder is put.
set(CMAKE_SHARED_LIBRARY_RPATH_ORIGIN_TOKEN "@loader_path")
