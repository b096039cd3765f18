/* The launcher ./tycho: LuaJIT with Tycho's folders in front of its package.path. lua/tycho/launch.lua reads the command line. Compiled with
 * TYCHO_BUNDLE, all Lua modules come from the folder lib/lua beside it, none from the system.
 * Installs no signal handler: Ctrl-C ends a script even inside a compiled loop, where luajit's own handler would never run. A write beyond the largest
 * size that a file may have (ulimit -f) fails like any other. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

/* The project's folder: where this program lies, symbolic links resolved. Returns 0, or 1 when /proc does not tell. */
static int find_root(char *root, size_t size) {
  ssize_t n = readlink("/proc/self/exe", root, size - 1);
  if (n <= 0) return 1;
  root[n] = 0;
  char *slash = strrchr(root, '/');
  if (!slash) return 1;
  *slash = 0;
  return 0;
}

static void set_paths(lua_State *L, const char *root) {
  lua_getglobal(L, "package");
#ifdef TYCHO_BUNDLE
  lua_pushfstring(L, "%s/lib/lua/?.so", root);
  lua_setfield(L, -2, "cpath");
  lua_pushfstring(L, "./?.lua;%s/lib/lua/?.lua;%s/lib/lua/?/init.lua", root, root);
#else
  lua_getfield(L, -1, "path");
#endif
  lua_pushfstring(L, "%s/lua/?.lua;%s/lua/?/init.lua;%s/?.lua;%s", root, root, root, lua_tostring(L, -1));
  lua_setfield(L, -3, "path");
  lua_getfield(L, -2, "loaded");
  lua_pushstring(L, root);
  lua_setfield(L, -2, "tycho.root");
  lua_settop(L, 0);
}

/* What was printed and could not be written, to a full disk for one, fails the program however it ends, unless nobody gave it an output. */
static void check_output(void) {
  int had_failed = ferror(stdout), fails = fflush(stdout), why = errno;
  if ((!had_failed && !fails) || fcntl(STDOUT_FILENO, F_GETFD) < 0) return;
  fprintf(stderr, "tycho: what was printed could not be written%s%s\n", fails ? ": " : "", fails ? strerror(why) : "");
  _exit(1);
}

int main(int argc, char **argv) {
  signal(SIGXFSZ, SIG_IGN);
  atexit(check_output);
  char root[4096];
  if (find_root(root, sizeof root)) {
    fprintf(stderr, "tycho: cannot read /proc/self/exe\n");
    return 1;
  }
  lua_State *L = luaL_newstate();
  if (!L) {
    fprintf(stderr, "tycho: no memory for the Lua state\n");
    return 1;
  }
  luaL_openlibs(L);
  set_paths(L, root);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "tycho.launch");
  int failed = lua_pcall(L, 1, 1, 0);
  if (!failed) {
    luaL_checkstack(L, argc, "too many arguments");
    for (int i = 1; i < argc; i++) lua_pushstring(L, argv[i]);
    failed = lua_pcall(L, argc - 1, 1, 0);
  }
  if (failed) fprintf(stderr, "tycho: %s\n", lua_tostring(L, -1));
  /* No lua_close: it would unload the libraries under the OpenMP threads that still wait in them. */
  return failed ? 1 : (int)lua_tointeger(L, -1);
}
