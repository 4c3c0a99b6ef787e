-- Pure functions: `nvim --headless -u NONE --cmd 'set rtp^=editors/nvim' -c 'luafile THIS'` ends with status 1 where a
-- claim does not hold.

local layout = require('dg_lsp.layout')
local text = require('dg_lsp.text')

local failures = {}

local function check(claim, found, wanted)
  if not vim.deep_equal(found, wanted) then
    failures[#failures + 1] = ('%s: %s, not %s'):format(claim, vim.inspect(found), vim.inspect(wanted))
  end
end

for given, wanted in pairs({
  ['width * height'] = 'width',
  [' * height'] = ' *',
  ['\n    return x'] = '\n    return',
  ['++i'] = '++',
  ['größe = 1'] = 'größe',
  ['漢字()'] = '漢字',
  ['   '] = '   ',
  [''] = '',
}) do
  check('the word of ' .. vim.inspect(given), text.word(given), wanted)
end

for given, wanted in pairs({
  ['a = 1\nb'] = 'a = 1',
  ['\n    b\nc'] = '\n    b',
  ['\n\nc'] = '\n',
  ['a'] = 'a',
  [''] = '',
}) do
  check('the line of ' .. vim.inspect(given), text.line(given), wanted)
end

check('line ends', text.normalise('a\r\nb\rc\nd'), 'a\nb\nc\nd')

-- x, an emoji, a letter of two bytes, a character of three: where the units of each encoding lead.
local line = 'x😀é漢y'
check('bytes', text.byte_offset(line, 5, 'utf-8'), 5)
check('bytes beyond the end', text.byte_offset(line, 99, 'utf-8'), #line)
for units, wanted in pairs({ [0] = 0, [1] = 1, [3] = 5, [4] = 7, [5] = 10, [6] = 11, [99] = 11 }) do
  check('UTF-16 unit ' .. units, text.byte_offset(line, units, 'utf-16'), wanted)
end
for units, wanted in pairs({ [0] = 0, [1] = 1, [2] = 5, [3] = 7, [4] = 10, [5] = 11, [99] = 11 }) do
  check('UTF-32 unit ' .. units, text.byte_offset(line, units, 'utf-32'), wanted)
end

local function compose(ghost, tail, after, can_inline)
  return layout.compose({ { text = ghost, group = 'G' } }, tail, after, can_inline)
end

check(
  'a text at the end of a line',
  compose('a, b', '', '', true),
  { inline = { { { 'a, b', 'G' } }, {} }, below = {} }
)
check(
  'a text that contains what it replaces goes around it',
  compose('a):', ')', ' # x', true),
  { inline = { { { 'a', 'G' } }, { { ':', 'G' } } }, below = {} }
)
check(
  'the last place is taken where a text contains it twice',
  compose('f(a))', ')', '', true),
  { inline = { { { 'f(a)', 'G' } }, {} }, below = {} }
)
check(
  'a text that does not contain what it replaces is drawn over it',
  compose('b', 'xyz', 'r', true),
  { overlay = { { 'b', 'G' }, { 'r' } }, below = {} }
)
check(
  'where nothing can be pushed aside the rest of the line is drawn again',
  compose('a', ')', ' # x', false),
  { overlay = { { 'a', 'G' }, { ' # x' } }, below = {} }
)
check(
  'what is replaced is drawn as the text that it is',
  compose('a)', ')', ':', false),
  { overlay = { { 'a', 'G' }, { ')' }, { ':' } }, below = {} }
)
check(
  'the rest of the line goes behind the last line',
  compose('a\n\nb', '', ')', true),
  { overlay = { { 'a', 'G' } }, below = { {}, { { 'b', 'G' }, { ')' } } } }
)
check(
  'pieces keep their groups across lines',
  layout.compose({ { text = 'a\nb', group = 'S' }, { text = '··', group = 'U' } }, '', '', true),
  { inline = { { { 'a', 'S' } }, {} }, below = { { { 'b', 'S' }, { '··', 'U' } } } }
)
check('blanks hide what is longer', layout.covering({ { 'a' } }, 'wide', 0), { { 'a' }, { '   ' } })
check('a tab is as wide as it is there', layout.covering({ { 'a' } }, '\t', 6), { { 'a' }, { ' ' } })
check('nothing is added to what is wider', layout.covering({ { 'wide' } }, 'a', 0), { { 'wide' } })

if #failures > 0 then
  io.stderr:write(table.concat(failures, '\n') .. '\n')
  vim.cmd('cquit')
end
vim.cmd('qall!')
