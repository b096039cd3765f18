-- Other programs: what they say, and a Python with PyTorch.
local M = {}

-- What a shell command writes to stdout, without the blanks at its end.
function M.output(command)
  local pipe = io.popen(('{ %s; } 2>/dev/null </dev/null'):format(command))
  local out = pipe:read '*a'
  pipe:close()
  return (out:gsub('%s+$', ''))
end

-- A Python that has torch and torchvision, and torch's version; nil where there is none. PYTHON names one to try first.
function M.find_torch()
  for _, name in ipairs { os.getenv 'PYTHON' or 'python3', '/usr/bin/python3' } do
    local version = M.output(name .. ' -c "import torch, torchvision; print(torch.__version__)"')
    if version:match '%d' then return name, version end
  end
end

return M
