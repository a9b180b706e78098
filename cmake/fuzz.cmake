# -DMEED_FUZZ=ON (clang only): every tests/fuzz/fuzz_<name>.c is a libFuzzer target fuzz_<name>, and
# the folder libraries are built for coverage feedback under ASan and UBSan. Included last, because
# meed_options is an interface that every library already links: what is added here reaches all.
# Warnings stay gcc's business; a clang that knows more of them must not stop the fuzzing.
if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
  message(FATAL_ERROR "libFuzzer needs clang: configure with -DCMAKE_C_COMPILER=clang")
endif()
set(instrument -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
  -fno-omit-frame-pointer)
target_compile_options(meed_options INTERFACE ${instrument} -Wno-error
  -Wno-unknown-warning-option -Wno-string-conversion)
target_link_options(meed_options INTERFACE -fsanitize=address,undefined)

add_custom_target(meed_fuzz)
file(GLOB targets CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/fuzz/fuzz_*.c)
foreach(file ${targets})
  get_filename_component(name ${file} NAME_WE)
  add_executable(${name} EXCLUDE_FROM_ALL ${file})
  target_link_libraries(${name} PRIVATE meed_server meed_client meed_evaluation)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  target_compile_definitions(${name} PRIVATE MEED_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  add_dependencies(meed_fuzz ${name})
endforeach()

# The YAML reader belongs to the command line, which is no library.
target_sources(fuzz_federation_file PRIVATE ${CMAKE_SOURCE_DIR}/cli/federation_file.c
  ${CMAKE_SOURCE_DIR}/cli/simulation_plan.c ${CMAKE_SOURCE_DIR}/cli/training_setting.c)
target_link_libraries(fuzz_federation_file PRIVATE MeedDep::cyaml)

# The page is read back by the tests' own checker of tags.
target_sources(fuzz_report PRIVATE ${CMAKE_SOURCE_DIR}/tests/support/tags.c)
target_link_libraries(fuzz_report PRIVATE meed_report)
