-- The worked ablations, whole and very small: every variant trains, and each ends in a table with deviations and a plot.
local lfs = require 'lfs'
local lib = require 'tycho.lib'
local json = require 'tycho.io.json'
local tycho = require 'tycho'
local files = require 'spec.files'
local shell = require 'spec.shell'

local folder = files.folder()
local read = files.read

local tiny = ('data_dir=%s/toy width=2 projection_dim=16 n_embd=8 resolution=16 classes=2 epochs=1 batch_size=32'):format(folder)

describe('ablations', function()
  setup(function()
    shell(('./tycho experiments/toy3d.lua out=%s/toy objects=32 val_objects=6 views=3 size=16 classes=2 workers=1'):format(folder))
  end)

  it('are short', function()
    local count = 0
    for name in lfs.dir(lib.root .. '/experiments/ablations') do
      if name:match('%.lua$') then
        count = count + 1
        local _, lines = read(lib.root .. '/experiments/ablations/' .. name):gsub('\n', '')
        assert(lines < 40, name)
      end
    end
    assert.equal(5, count)
  end)

  for name, variants in pairs {
    context_mask = { 'off', '0.25', '0.5', '0.75', '0.9' }, auxiliary_predictor = { 'on', 'off', 'own state' }, block_size = { '4', '8', '16', '32' },
    environments = { 'half and half', 'rotation', 'colour', 'thirds' }, invariant_tokens = { 'with actions', 'without' },
  } do
    it('end in a table and a plot: ' .. name, function()
      local seeds = name == 'invariant_tokens' and 2 or 1
      local place = ('%s/%s'):format(folder, name)
      local out, status = shell(('./tycho experiments/ablations/%s.lua %s seeds=%d sweep_dir=%s'):format(name, tiny, seeds, place))
      assert(status == 0, out)
      local lines = {}
      for line in read(place .. '/ablation.csv'):gmatch('[^\n]+') do lines[#lines + 1] = line end
      assert.equal(#variants + 1, #lines)
      for i, variant in ipairs(variants) do
        assert.equal(variant, lines[i + 1]:match('^[^,]*'))
        local cells = select(2, lines[i + 1]:gsub('%-?%d+%.%d+', ''))
        -- Six means, and their deviations where there are two seeds; a variant's name may be a number too.
        assert(cells >= 6 * seeds, lines[i + 1])
      end
      if seeds == 2 then assert(read(place .. '/ablation.txt'):find('%d ± %d')) end
      assert(read(place .. '/ablation.svg'):find('colour context', 1, true))
      assert(lfs.attributes(place .. '/ablation.png', 'size') > 1000)
    end)
  end

  it('change what they say they change', function()
    local function last(place)
      local row
      for line in io.lines(('%s/%s/metrics.jsonl'):format(folder, place)) do row = json.decode(line) end
      return row
    end
    assert.is_nil(last('auxiliary_predictor/variant=off_seed=0').color_mse)
    local settings = require('tycho.runs.read').settings
    assert.equal('false', settings(folder .. '/context_mask/variant=off_seed=0').random_mask)
    assert.equal('0.75', settings(folder .. '/context_mask/variant=0.75_seed=0').mask_prob)
    assert.equal('true', settings(folder .. '/invariant_tokens/variant=without_seed=1').is_invariant)
    assert.is_nil(last('environments/variant=colour_seed=0').rot_mse)
  end)

  it('refuse a variant that is not there', function()
    local out = shell(('./tycho experiments/ablations/context_mask.lua %s variant=of run_dir=%s/none'):format(tiny, folder))
    assert(out:find("there is no variant 'of'; did you mean 'off'?", 1, true), out)
  end)

  it('say what is misspelt', function()
    for text, sentence in pairs {
      ["variant = {}"] = "ablation: unknown option 'variant'; did you mean 'variants'?",
      ["variants = { { name = 'a', setting = {} } }"] = "variant 'a': unknown option 'setting'; did you mean 'settings'?",
      ["variants = { { name = 'a', policies = { mask = 1 } } }"] = "variant 'a', policies: unknown option 'mask'; did you mean 'masks'?",
      ["variants = { { name = 'a', terms = { probs = false } } }"] = "variant 'a', terms: unknown option 'probs'; did you mean 'probes'?",
    } do
      local script = files.write(folder .. '/own.lua', ("require 'experiments.contextssl.ablation' { name = 'own', %s }"):format(text))
      local out, status = shell(('./tycho %s %s sweep_dir=%s/none'):format(script, tiny, folder))
      assert.equal(1, status)
      assert(out:find(sentence, 1, true), out)
    end
  end)

  it('score by neighbours: R2 of the mean state of the nearest', function()
    local knn = require 'experiments.contextssl.knn'
    local query = tycho.tensor { { 1, 0 }, { 0, 1 } }
    local bank = tycho.tensor { { 0.6, 0.8 }, { 1, 0 }, { 0, 1 }, { -1, 0 } }
    assert.same({ { 1, 0 }, { 2, 0 } }, knn.nearest(query, bank, 2))
  end)
end)
