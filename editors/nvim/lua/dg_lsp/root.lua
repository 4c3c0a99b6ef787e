--- Which folder the server is told to be the workspace of a file. There is always one: rules on what is never read hold
--- within the workspace.

local M = {}

-- In order of precedence; those of `lsp/dg_lsp.lua`, too.
M.MARKERS = { '.git', '.dglspignore' }

---@param folder string
---@param marker string
---@return string|nil
local function nearest(folder, marker)
  while not vim.loop.fs_stat(folder .. '/' .. marker) do
    local parent = vim.fn.fnamemodify(folder, ':h')
    if parent == folder then
      return nil
    end
    folder = parent
  end
  return folder
end

--- The nearest repository, or the nearest folder with rules of its own, or the working directory if the file is below
--- it, or the file's folder.
---@param path string
---@return string
function M.of(path)
  local folder = vim.fn.fnamemodify(path, ':p:h')
  for _, marker in ipairs(M.MARKERS) do
    local found = nearest(folder, marker)
    if found then
      return found
    end
  end
  local here = vim.fn.getcwd()
  return vim.startswith(folder .. '/', here .. '/') and here or folder
end

return M
