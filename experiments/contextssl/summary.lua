-- A row of metrics as lines for people: the terminal's and train.log's.
local M = {}

local function text(x, format) return x and (format or '%.3f'):format(x) or '-' end

-- A few words on the epoch so far, for the line that is rewritten.
function M.status(means)
  return ('loss %s  R2 rot %s color %s'):format(text(means.loss), text(means.rot_r2, '%.2f'), text(means.color_r2, '%.2f'))
end

-- One line on an epoch's training meters.
function M.epoch(row, epochs)
  return table.concat({
    ('epoch %d/%d'):format(row.epoch, epochs),
    'loss ' .. text(row.loss, '%.4f'),
    ('rotation R2 %s MSE %s'):format(text(row.rot_r2), text(row.rot_mse, '%.4f')),
    ('colour R2 %s MSE %s'):format(text(row.color_r2), text(row.color_mse, '%.4f')),
    ('class feat %s CE %s, pred %s CE %s'):format(text(row.acc_feat), text(row.ce_feat), text(row.acc_pred), text(row.ce_pred)),
    ('similarity of pairs %s, of all %s'):format(text(row.pos_sim), text(row.neg_sim)),
    ('lr %.2e'):format(row.lr),
  }, '  ')
end

-- Lines on R2 by position in the context, and on the evaluation behind a fixed context where the row has one.
function M.contexts(row, block_size)
  local lines = {}
  local last = block_size - 2
  local function by_position(name)
    local parts = {}
    for _, c in ipairs { 0, 1, last, last + 1 } do parts[#parts + 1] = text(row[('%s/c%d'):format(name, c)]) end
    return table.concat(parts, ' ')
  end
  if row['rot_equivariance/c0'] or row['color_equivariance/c0'] then
    lines[#lines + 1] = ('  R2 at tokens 0, 1, %d, %d: equivariance, rotation %s, colour %s; invariance, rotation %s, colour %s'):format(last,
      last + 1, by_position 'rot_equivariance', by_position 'color_equivariance', by_position 'rot_invariance', by_position 'color_invariance')
  end
  for _, mode in ipairs { 'rot', 'color' } do
    for _, c in ipairs { 0, last } do
      local function value(key) return text(row[('eval/%s/c%d/%s'):format(mode, c, key)]) end
      if row[('eval/%s/c%d/zr/rotation'):format(mode, c)] then
        lines[#lines + 1] = ('  held out, %s context of %d tokens: rotation R2 zr %s z+ %s  colour R2 zr %s z+ %s  class pred zr %s z+ %s'):format(
          mode == 'rot' and 'rotation' or 'colour', c, value 'zr/rotation', value 'z+/rotation', value 'zr/color', value 'z+/color',
          value 'zr/acc_pred', value 'z+/acc_pred')
      end
    end
  end
  if row['eval/knn_feat'] then
    lines[#lines + 1] = ('  held out: class feat %s, kNN feat %s pred %s; rotation R2 of a constant predictor %s'):format(text(row['eval/acc_feat']),
      text(row['eval/knn_feat']), text(row['eval/knn_pred']), text(row['eval/floor/rotation']))
  end
  return lines
end

return M
