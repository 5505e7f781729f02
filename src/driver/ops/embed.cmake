# Turns text files, one behind the other, into a C array: cmake -DNAME=... -DOUT=... "-DFILES=a;b" -P embed.cmake
# An array of bytes, since compilers need not take string literals of more than 4095 characters.
set(hex "")
foreach(file IN LISTS FILES)
    file(READ ${file} part HEX)
    string(APPEND hex ${part})
endforeach()
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
string(REGEX REPLACE "((0x[0-9a-f][0-9a-f],)(0x[0-9a-f][0-9a-f],)(0x[0-9a-f][0-9a-f],)(0x[0-9a-f][0-9a-f],))" "\\1\n" bytes "${bytes}")
file(WRITE ${OUT} "/* Made by embed.cmake. */\n#include <stddef.h>\n\n"
    "extern const char ${NAME}[];\nextern const size_t ${NAME}_bytes;\n\n"
    "const char ${NAME}[] = {\n${bytes}0};\nconst size_t ${NAME}_bytes = sizeof ${NAME} - 1;\n")
