# Generates the protobuf-c code of every .proto here and builds the folder. Generated code is
# compiled without warnings and seen as a system header: it is not ours.
file(GLOB proto_files CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/proto/*.proto)
file(GLOB proto_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/proto/*.c)
set(generated_dir ${CMAKE_BINARY_DIR}/generated)
file(MAKE_DIRECTORY ${generated_dir})
set(generated)
foreach(file ${proto_files})
  get_filename_component(stem ${file} NAME_WE)
  add_custom_command(
    OUTPUT ${generated_dir}/${stem}.pb-c.c ${generated_dir}/${stem}.pb-c.h
    COMMAND ${MEED_PROTOC_C} --proto_path=${CMAKE_SOURCE_DIR}/proto --c_out=${generated_dir} ${file}
    DEPENDS ${file})
  list(APPEND generated ${generated_dir}/${stem}.pb-c.c)
endforeach()
if(generated)
  add_library(meed_generated OBJECT ${generated})
  target_compile_options(meed_generated PRIVATE -w)
  target_link_libraries(meed_generated PRIVATE MeedDep::protobuf_c)
endif()
if(proto_sources)
  add_library(meed_proto STATIC ${proto_sources}
    $<$<BOOL:${generated}>:$<TARGET_OBJECTS:meed_generated>>)
  target_include_directories(meed_proto SYSTEM PRIVATE ${generated_dir})
  target_link_libraries(meed_proto PUBLIC meed_options meed_base
    PRIVATE MeedDep::grpc MeedDep::protobuf_c MeedDep::zstd MeedDep::crypto)
else()
  add_library(meed_proto INTERFACE)
  target_link_libraries(meed_proto INTERFACE meed_options meed_base)
endif()
