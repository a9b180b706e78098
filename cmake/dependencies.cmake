# Third-party libraries, each behind one imported name. Distribution packages are listed in
# packages.txt; a missing one fails here with the command that installs them all.
find_package(Threads REQUIRED)

# meed_dependency(ALIAS HEADER LIBRARY…): imported target MeedDep::ALIAS, headers as system headers.
function(meed_dependency alias header)
  find_path(MEED_${alias}_INCLUDE ${header} PATH_SUFFIXES lapacke)
  set(libraries)
  foreach(name ${ARGN})
    find_library(MEED_${alias}_${name} ${name})
    if(NOT MEED_${alias}_${name})
      message(FATAL_ERROR "lib${name} not found: run `make packages` (needs root), then build again")
    endif()
    list(APPEND libraries ${MEED_${alias}_${name}})
  endforeach()
  if(NOT MEED_${alias}_INCLUDE)
    message(FATAL_ERROR "${header} not found: run `make packages` (needs root), then build again")
  endif()
  add_library(MeedDep::${alias} INTERFACE IMPORTED GLOBAL)
  set_target_properties(MeedDep::${alias} PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${MEED_${alias}_INCLUDE}"
    INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${MEED_${alias}_INCLUDE}"
    INTERFACE_LINK_LIBRARIES "${libraries}")
endfunction()

meed_dependency(dnnl oneapi/dnnl/dnnl.h dnnl)
meed_dependency(jansson jansson.h jansson)
meed_dependency(pcre2 pcre2.h pcre2-8)
meed_dependency(utf8proc utf8proc.h utf8proc)
meed_dependency(zstd zstd.h zstd)
meed_dependency(zlib zlib.h z)
meed_dependency(curl curl/curl.h curl)
meed_dependency(sqlite3 sqlite3.h sqlite3)
meed_dependency(crypto openssl/evp.h crypto ssl)
meed_dependency(cyaml cyaml/cyaml.h cyaml yaml)
meed_dependency(microhttpd microhttpd.h microhttpd)
meed_dependency(lapacke lapacke.h lapacke)
meed_dependency(grpc grpc/grpc.h grpc gpr)
meed_dependency(protobuf_c protobuf-c/protobuf-c.h protobuf-c)
meed_dependency(cmocka cmocka.h cmocka)
find_program(MEED_PROTOC_C protoc-c REQUIRED)
