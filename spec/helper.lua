-- Makes the project's modules loadable from the specs, wherever busted was started.
local root = debug.getinfo(1, 'S').source:match('^@(.*)/spec/helper%.lua$') or '.'
package.path = ('%s/lua/?.lua;%s/lua/?/init.lua;%s/?.lua;'):format(root, root, root) .. package.path
