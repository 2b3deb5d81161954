# tern_add_plugin(NAME source...): a tern plugin, libtern-NAME.so, the target tern-NAME. It sees tern's headers, links
# libm but nothing of the core, and exports tern_plugin_query only. Used by this repository for its own plugins, and installed for everybody else's.
set(TERN_PLUGIN_MAP "${CMAKE_CURRENT_LIST_DIR}/plugin.map")

function(tern_add_plugin name)
  add_library(tern-${name} MODULE ${ARGN})
  set_target_properties(tern-${name} PROPERTIES
    PREFIX lib C_VISIBILITY_PRESET hidden CXX_VISIBILITY_PRESET hidden POSITION_INDEPENDENT_CODE ON
    LINK_DEPENDS "${TERN_PLUGIN_MAP}")
  target_include_directories(tern-${name} PRIVATE
    $<TARGET_PROPERTY:tern::tern,INTERFACE_INCLUDE_DIRECTORIES>)
  target_link_options(tern-${name} PRIVATE "-Wl,--version-script=${TERN_PLUGIN_MAP}")
  target_link_libraries(tern-${name} PRIVATE m) # a missing one would show up at dlopen only
endfunction()
