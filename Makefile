# make            builds build/libtycho-LEVEL.so for each level, build/libtycho64.so and ./tycho
# make deps       installs the Debian packages below that are missing
# make demo       deps, build, render toy3d, train, evaluate
# make ablations  deps, build, the ablations of experiments/ablations on small toy data: some minutes; ARGS="seeds=5 epochs=160" changes them
# make test       deps, build, all specs
# make parity GOLDENS=dir   the golden checks on a folder of reference numbers
# make bench      times of the prompt, and of ops against PyTorch's, where python3 has it: ten minutes in which this machine should do nothing else
# make docs       build/docs: the API reference, and types for editors with the Lua language server
# make cuda       builds build/libtycho_cuda.so with nvcc; it is used where a GPU and its driver are
# make cuda-host  the same sources for the CPU, build/libtycho_cuda_host.so, for the tests
# make gpu-check  all that only a GPU can show, in under ten minutes once it is built, from the bundle: spec/bench/results/<device>.{json,md,log}; the same in
#                 an unpacked bundle
# make bundle     build/tycho.tar.xz: all of it and what it needs but for glibc, to run in any folder of another machine; without nvcc the library for
#                 GPUs is the one that was built before, if any
# make lint       luacheck, and compiler warnings as errors
# Optional at run time: libturbojpeg0 (JPEG decoding is slower without).
# Variables: LEVELS (instruction sets of the float library: avx512 avx2 plain), SAN=1 (address and undefined-behaviour sanitizers), CC (a gcc),
#            CFLAGS, BLAS_DIR, CUDA (where the toolkit is)

PACKAGES = g++ luajit libluajit-5.1-dev libopenblas-openmp-dev libstb-dev libturbojpeg0 lua-yaml lua-filesystem lua-dkjson lua-busted lua-check

BUILD  ?= build
CC     ?= gcc
MULTIARCH := $(shell $(CC) -print-multiarch 2>/dev/null)
# The float library is compiled once for each level and lua/tycho/lib.lua loads the best that the machine runs, as csrc/cpu.c finds it;
# plain is what every machine of the architecture has.
LEVELS ?= $(if $(filter x86_64-%,$(MULTIARCH)),avx512 avx2) plain
FLAGS_avx2   = -mavx2 -mfma
FLAGS_avx512 = $(FLAGS_avx2) -mavx512f -mavx512bw -mavx512dq -mavx512vl
BLAS_DIR  ?= /usr/lib/$(MULTIARCH)/openblas-openmp
WARN    = -Wall -Wextra -Wshadow -Wno-unknown-pragmas -Wno-psabi $(if $(WERROR),-Werror)
CFLAGS ?= -O3 -g
ifdef SAN
BUILD  := $(BUILD)/san
CFLAGS := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
TEST_ENV = TYCHO_BUILD=$(CURDIR)/$(BUILD) ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$(shell $(CC) -print-file-name=libasan.so) $(shell $(CC) -print-file-name=libubsan.so)"
endif
ALL_CFLAGS = $(CFLAGS) -std=gnu11 -fPIC -fopenmp -fno-math-errno -fno-trapping-math -ffp-contract=fast -fvisibility=default $(WARN)
# nodelete: OpenMP's threads outlive the Lua state that loaded the library.
# A bundle has its own libraries in lib/.
LIBS    = -L$(BLAS_DIR) -Wl,-rpath,'$$ORIGIN/../lib:$(BLAS_DIR)' -lopenblas -lm -lpthread
LUAJIT_CFLAGS = -I/usr/include/luajit-2.1

SOURCES = $(filter-out csrc/main.c,$(wildcard csrc/*.c))
# No double tensors there.
FLOAT_ONLY = csrc/image.c csrc/decode.c csrc/encode.c csrc/resize.c csrc/loader.c csrc/render.c
FLOAT_LIBS = $(LEVELS:%=$(BUILD)/libtycho-%.so)
OBJ64   = $(patsubst csrc/%.c,$(BUILD)/obj/double/%.o,$(filter-out $(FLOAT_ONLY),$(SOURCES)))

ifeq ($(filter -j%,$(MAKEFLAGS)),)
MAKEFLAGS += -j$(shell nproc)
endif

.PHONY: all deps demo ablations test parity bench docs bundle bundle-tree gpu-check lint clean cuda cuda-host
all: $(FLOAT_LIBS) $(BUILD)/libtycho64.so tycho

# One list of packages for everything above; no network when all are there.
deps:
	@missing=""; for p in $(PACKAGES); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'install ok installed' || missing="$$missing $$p"; done; \
	[ -z "$$missing" ] && exit 0; \
	if [ "$$(id -u)" = 0 ]; then sudo=; elif command -v sudo >/dev/null; then sudo=sudo; else \
	  echo "missing packages; as root run: apt-get update && apt-get install -y --no-install-recommends$$missing" >&2; exit 1; fi; \
	echo "installing$$missing"; \
	$$sudo apt-get update -q && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing

# ---- the device libraries: kernels/ over the checks and plans that they share with the CPU's ----
SHARED  = csrc/accept.c csrc/accept_layers.c csrc/check.c csrc/strided.c
KERNELS = $(filter-out kernels/blas.cu kernels/dnn.cu,$(wildcard kernels/*.cu))
HEADERS = $(wildcard kernels/*.h kernels/host/*.h csrc/*.h csrc/map.def)
HOST_OBJ = $(patsubst %,$(BUILD)/obj/cuda-host/%.o,$(notdir $(KERNELS) $(wildcard kernels/host/*.cpp) $(SHARED) csrc/conv_direct.c csrc/conv_weights.c))
# Jumps between the threads' stacks look like errors to the checks of _FORTIFY_SOURCE.
HOST_FLAGS = $(filter-out -std=%,$(ALL_CFLAGS)) -DTY_DEVICE=TY_CUDA_HOST -DTYCHO_HOST -U_FORTIFY_SOURCE
cuda-host: $(BUILD)/libtycho_cuda_host.so
$(BUILD)/libtycho_cuda_host.so: $(HOST_OBJ)
	$(CXX) $(HOST_FLAGS) -shared -static-libstdc++ -static-libgcc -Wl,-Bsymbolic,-z,nodelete $^ $(LIBS) -o $@
# The CPU's convolutions run later than they are asked for there, when what the device's memory has unused is another's.
$(BUILD)/obj/cuda-host/conv_%.c.o: HOST_FLAGS += -Dty_alloc=host_alloc -Dty_free=host_free
$(BUILD)/obj/cuda-host/%.c.o: csrc/%.c $(HEADERS) | $(BUILD)/obj/cuda-host
	$(CC) $(HOST_FLAGS) -std=gnu11 -c $< -o $@
$(BUILD)/obj/cuda-host/%.cpp.o: kernels/host/%.cpp $(HEADERS) | $(BUILD)/obj/cuda-host
	$(CXX) $(HOST_FLAGS) -std=gnu++17 -c $< -o $@
$(BUILD)/obj/cuda-host/%.cu.o: kernels/%.cu $(HEADERS) | $(BUILD)/obj/cuda-host
	$(CXX) $(HOST_FLAGS) -std=gnu++17 -x c++ -c $< -o $@

# The plugin is not told where NVIDIA's libraries are: lua/tycho/device.lua finds them.
CUDA   ?= /usr/local/cuda
NVCC   ?= $(CUDA)/bin/nvcc
ARCHS   = 80 86 90
comma  := ,
NVCC_FLAGS = -O3 -std=c++17 -DTY_DEVICE=TY_CUDA -Xptxas -warn-spills -Werror all-warnings -Xcompiler -fPIC \
  $(foreach a,$(ARCHS),-gencode arch=compute_$(a)$(comma)code=sm_$(a)) -gencode arch=compute_90$(comma)code=compute_90
CUDA_OBJ = $(patsubst %,$(BUILD)/obj/cuda/%.o,$(notdir $(wildcard kernels/*.cu) $(SHARED)))
cuda: all $(BUILD)/libtycho_cuda.so
$(BUILD)/libtycho_cuda.so: $(CUDA_OBJ)
	$(NVCC) -shared -cudart static -Xcompiler -static-libstdc++,-static-libgcc -Xlinker -Bsymbolic,-z,nodelete $^ -L$(CUDA)/lib64 -lcublas -lcudnn -o $@
$(BUILD)/obj/cuda/%.c.o: csrc/%.c $(HEADERS) | $(BUILD)/obj/cuda
	$(CC) $(filter-out -fopenmp,$(ALL_CFLAGS)) -DTY_DEVICE=TY_CUDA -c $< -o $@
$(BUILD)/obj/cuda/%.cu.o: kernels/%.cu $(HEADERS) | $(BUILD)/obj/cuda
	$(NVCC) $(NVCC_FLAGS) -c $< -o $@

demo: deps
	@$(MAKE) --no-print-directory all
	./tycho experiments/demo.lua

ablations: deps
	@$(MAKE) --no-print-directory all
	@for file in experiments/ablations/*.lua; do ./tycho $$file $(ARGS) || exit 1; done

test: deps
	@$(MAKE) --no-print-directory all cuda-host
	$(TEST_ENV) busted

parity: all
	./tycho spec/parity/run.lua "$(GOLDENS)"

bench: all $(BUILD)/peak
	@if chrt -f 10 true 2>/dev/null; then first="chrt -f 10"; fi; $$first ./tycho spec/bench/prompt.lua && $$first ./tycho spec/bench/run.lua

docs: all
	./tycho docs

# ---- the bundle ----
LUA_DIR    = /usr/share/lua/5.1
LUA_SO_DIR = /usr/lib/$(MULTIARCH)/lua/5.1
LUA_PARTS  = busted busted.lua cliargs cliargs.lua dkjson.lua luassert lyaml mediator.lua pl say.lua say system term
TREE       = $(BUILD)/bundle/tycho
# Shared objects that come along, with all that they need; OPENED: by name at run time; STAYS: what is the system's, and what comes with a GPU's libraries.
CARRIED    = $(FLOAT_LIBS) $(BUILD)/libtycho64.so $(wildcard $(BUILD)/libtycho_cuda*.so)
OPENED     = libturbojpeg.so.0 libz.so.1
STAYS      = ld-linux|/lib(c|m|dl|pthread|rt)\.so|libstdc|libcu|libnv
bundle: all $(if $(wildcard $(NVCC)),cuda) cuda-host
	@$(MAKE) --no-print-directory bundle-tree
	@cd $(TREE)/build && echo "libraries: $$(echo *.so)"
	tar -C $(BUILD)/bundle -cf - tycho | xz -9 -T0 > $(BUILD)/tycho.tar.xz
	@ls -l $(BUILD)/tycho.tar.xz | awk '{printf "%s: %.1f MB\n", $$NF, $$5 / 1e6; exit $$5 > 30e6}'
bundle-tree: all
	rm -rf $(BUILD)/bundle
	mkdir -p $(TREE)/build $(TREE)/lib/lua
	$(CC) -O2 -std=gnu11 $(WARN) -DTYCHO_BUNDLE $(LUAJIT_CFLAGS) csrc/main.c -Wl,-E,--disable-new-dtags,-rpath,'$$ORIGIN/lib' -lluajit-5.1 -o $(TREE)/tycho
	cp -r csrc experiments kernels lua spec LICENSE README.md Makefile .luarc.json $(TREE)/
	echo "require 'busted.runner'({ standalone = false }) -- ./tycho specs.lua spec/tiny_spec.lua" > $(TREE)/specs.lua
	cp $(CARRIED) $(TREE)/build/
	for part in $(LUA_PARTS); do [ ! -e $(LUA_DIR)/$$part ] || cp -rL $(LUA_DIR)/$$part $(TREE)/lib/lua/; done
	cp -r $$(dirname $$(find /usr/share/luajit* -name vmdef.lua)) $(TREE)/lib/lua/
	cd $(LUA_SO_DIR) && cp -rL lfs.so yaml.so system term $(CURDIR)/$(TREE)/lib/lua/
	for file in $(TREE)/tycho $(TREE)/build/*.so $$(find $(TREE)/lib -name '*.so'); do ldd $$file; done | awk '$$2 == "=>" && $$3 ~ "^/" {print $$3}' | sort -u | \
	  grep -Ev '$(STAYS)' | xargs -I{} cp -L {} $(TREE)/lib/
	cd /usr/lib/$(MULTIARCH) && cp -L $(OPENED) $(CURDIR)/$(TREE)/lib/
	find $(TREE) -name '*.so*' -exec strip --strip-unneeded {} +

# specs.lua is in a bundle alone.
gpu-check: $(if $(wildcard specs.lua),,cuda bundle-tree)
	cd $(if $(wildcard specs.lua),.,$(TREE)) && ./tycho spec/gpu_check/run.lua out=$(CURDIR)/spec/bench/results $(ARGS)

lint: deps
	luacheck -q lua experiments spec
	@for flags in $(foreach level,$(LEVELS),"$(FLAGS_$(level))") -DTYCHO_DOUBLE; do for file in $(SOURCES); do \
	  $(CC) $(ALL_CFLAGS) -Werror -fsyntax-only $$flags $$file || exit 1; done; done
	$(CC) $(ALL_CFLAGS) -Werror -fsyntax-only $(LUAJIT_CFLAGS) csrc/main.c
	@for file in $(KERNELS) $(wildcard kernels/host/*.cpp); do $(CXX) $(HOST_FLAGS) -std=gnu++17 -Werror -fsyntax-only -x c++ $$file || exit 1; done

# The rules of one level of the float library.
define rules_of_level
$(BUILD)/obj/$(1)/%.o: csrc/%.c | $(BUILD)/obj/$(1)
	$$(CC) $$(ALL_CFLAGS) $$(FLAGS_$(1)) -MMD -MP -c $$< -o $$@
$(BUILD)/libtycho-$(1).so: $$(SOURCES:csrc/%.c=$(BUILD)/obj/$(1)/%.o)
	$$(CC) $$(ALL_CFLAGS) -shared -Wl,-Bsymbolic,-z,nodelete $$^ $$(LIBS) -o $$@
-include $$(SOURCES:csrc/%.c=$(BUILD)/obj/$(1)/%.d)
endef
$(foreach level,$(LEVELS),$(eval $(call rules_of_level,$(level))))
$(BUILD)/obj/double/%.o: csrc/%.c | $(BUILD)/obj/double
	$(CC) $(ALL_CFLAGS) -DTYCHO_DOUBLE -MMD -MP -c $< -o $@
-include $(OBJ64:.o=.d)
$(BUILD)/libtycho64.so: $(OBJ64)
	$(CC) $(ALL_CFLAGS) -shared -Wl,-Bsymbolic,-z,nodelete $^ $(LIBS) -o $@
$(BUILD)/peak: spec/bench/peak.c | $(BUILD)/obj/plain
	$(CC) -O3 -march=native -ffp-contract=fast -fopenmp $(WARN) $< -o $@
tycho: csrc/main.c
	$(CC) -O2 -g -std=gnu11 $(WARN) $(LUAJIT_CFLAGS) $< -Wl,-E -lluajit-5.1 -o $@
$(patsubst %,$(BUILD)/obj/%,$(LEVELS) double cuda cuda-host):
	mkdir -p $@

clean:
	rm -rf build tycho
