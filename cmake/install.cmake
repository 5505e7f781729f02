# What `cmake --install` puts where: the library, the headers, the backends in a folder that tritonserver's
# --backend-directory takes, the CMake package, the pkg-config file, the man pages, completion. All of it finds its parts
# by relative paths, so that a prefix may be moved and DESTDIR works.
#
# With UMO_WHEEL the same rules fill the Python package: lib, backends, include and share beside its modules, without
# links (a wheel has none), and what belongs to the environment (man pages, completion) in the wheel's data folder.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(docs_prefix "")
if(UMO_WHEEL)
    set(CMAKE_INSTALL_LIBDIR lib)
    set(CMAKE_INSTALL_INCLUDEDIR include)
    set(backends_dir backends)
    set(cmake_dir share/cmake/umo)
    set(pkgconfig_dir share/pkgconfig)
    set(docs_prefix ${SKBUILD_DATA_DIR}/)
else()
    set(backends_dir ${CMAKE_INSTALL_LIBDIR}/umo/backends)
    set(cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/umo)
    set(pkgconfig_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endif()
set(UMO_INSTALL_BACKENDS ${backends_dir} CACHE STRING "Where backends are installed, from the prefix")

# --- the library ------------------------------------------------------------------------------------------------------
set(link NAMELINK_COMPONENT development)
if(UMO_WHEEL)
    set(link NAMELINK_SKIP)
endif()
install(TARGETS umo EXPORT umo-targets
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT library ${link})
install(DIRECTORY include/umo DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development
    FILES_MATCHING PATTERN "*.h" PATTERN "*.hpp" PATTERN "*.inc")
if(UMO_WHEEL AND UMO_WHEEL_LICENCES) # of what is linked in; the package's own comes from pyproject.toml
    install(FILES ${UMO_WHEEL_LICENCES} DESTINATION ${SKBUILD_METADATA_DIR}/licenses/jansson COMPONENT library)
elseif(NOT UMO_WHEEL)
    install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/doc/umo COMPONENT library)
endif()

# --- the backends -----------------------------------------------------------------------------------------------------
set(here "$ORIGIN")
if(CMAKE_SYSTEM_NAME STREQUAL "Darwin")
    set(here "@loader_path")
endif()
if(UMO_BUILD_TRITON)
    get_filename_component(library_dir ${CMAKE_INSTALL_LIBDIR} ABSOLUTE BASE_DIR /prefix)
    get_filename_component(one_backend ${UMO_INSTALL_BACKENDS}/one ABSOLUTE BASE_DIR /prefix)
    file(RELATIVE_PATH to_library ${one_backend} ${library_dir})
    string(REGEX REPLACE "/$" "" to_library ${to_library})
    foreach(backend umo_identity umo_kernel umo_onnxruntime)
        # Beside the backend or in the folder of backends comes first: so they are copied into a server's own folder.
        set_target_properties(triton_${backend} PROPERTIES
            INSTALL_RPATH "${here};${here}/..;${here}/${to_library}")
        install(TARGETS triton_${backend}
            LIBRARY DESTINATION ${UMO_INSTALL_BACKENDS}/${backend} COMPONENT backends)
    endforeach()
endif()

# --- what builds on it --------------------------------------------------------------------------------------------------
install(EXPORT umo-targets NAMESPACE umo:: DESTINATION ${cmake_dir} COMPONENT development)
if(UMO_BUILD_TRITON AND NOT UMO_WHEEL)
    # The entry points are an object of their own: a linker leaves out what nobody calls in an archive.
    add_library(umo_entry OBJECT triton/kit/entry.c)
    target_link_libraries(umo_entry PRIVATE umo_kit $<BUILD_INTERFACE:umo_warnings>)
    set_target_properties(umo_kit PROPERTIES EXPORT_NAME kit)
    set_target_properties(umo_entry PROPERTIES EXPORT_NAME entry)
    install(TARGETS umo_kit umo_entry EXPORT umo-kit-targets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development
        OBJECTS DESTINATION ${CMAKE_INSTALL_LIBDIR}/umo COMPONENT development)
    install(EXPORT umo-kit-targets NAMESPACE umo:: DESTINATION ${cmake_dir} COMPONENT development)
endif()
configure_package_config_file(cmake/umoConfig.cmake.in ${CMAKE_BINARY_DIR}/package/umoConfig.cmake
    INSTALL_DESTINATION ${cmake_dir} NO_SET_AND_CHECK_MACRO PATH_VARS UMO_INSTALL_BACKENDS)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/package/umoConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/package/umoConfig.cmake ${CMAKE_BINARY_DIR}/package/umoConfigVersion.cmake
    DESTINATION ${cmake_dir} COMPONENT development)

get_filename_component(pkgconfig_at ${pkgconfig_dir} ABSOLUTE BASE_DIR /prefix)
file(RELATIVE_PATH to_prefix ${pkgconfig_at} /prefix)
string(REGEX REPLACE "/$" "" to_prefix ${to_prefix})
if(UMO_WHEEL)
    # There is no libumo.so beside it that -lumo would find.
    set(pc_libs "\${libdir}/$<TARGET_SONAME_FILE_NAME:umo>")
else()
    set(pc_libs "-L\${libdir} -lumo")
endif()
configure_file(cmake/umo.pc.in ${CMAKE_BINARY_DIR}/package/umo.pc.made @ONLY)
file(GENERATE OUTPUT ${CMAKE_BINARY_DIR}/package/umo.pc INPUT ${CMAKE_BINARY_DIR}/package/umo.pc.made)
install(FILES ${CMAKE_BINARY_DIR}/package/umo.pc DESTINATION ${pkgconfig_dir} COMPONENT development)

# --- what a user reads ---------------------------------------------------------------------------------------------------
file(GLOB pages CONFIGURE_DEPENDS man/*.1)
install(FILES ${pages} DESTINATION ${docs_prefix}${CMAKE_INSTALL_DATAROOTDIR}/man/man1 COMPONENT documentation)
foreach(shell bash:umo:bash-completion/completions zsh:_umo:zsh/site-functions fish:umo.fish:fish/vendor_completions.d)
    string(REPLACE ":" ";" shell ${shell})
    list(GET shell 0 name)
    list(GET shell 1 file)
    list(GET shell 2 folder)
    install(FILES man/completion/${name}/${file}
        DESTINATION ${docs_prefix}${CMAKE_INSTALL_DATAROOTDIR}/${folder} COMPONENT documentation)
endforeach()

# The extension of the Python package, where it is built.
if(UMO_WHEEL AND TARGET umo_python)
    install(TARGETS umo_python LIBRARY DESTINATION . COMPONENT library)
endif()
