/* A shared object that is no plugin: it lacks tern_plugin_query. */
int nothing_of_interest(void);
int nothing_of_interest(void) { return 1; }
