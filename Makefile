# make            builds build/libtycho.so, build/libtycho64.so and ./tycho
# make deps       installs the Debian packages below that are missing
# make demo       deps, build, render toy3d, train, evaluate
# make test       deps, build, all specs
# make parity GOLDENS=dir   the golden checks on a folder of reference numbers
# make lint       luacheck and compiler warnings as errors
# Variables: ARCH (-march, default native), SAN=1 (address and undefined-behaviour sanitizers), PREFIX, DESTDIR

PACKAGES = luajit libluajit-5.1-dev libopenblas-openmp-dev libstb-dev lua-yaml lua-filesystem lua-dkjson lua-busted lua-check

BUILD  ?= build
ARCH   ?= native
CC     ?= gcc
MULTIARCH := $(shell $(CC) -print-multiarch 2>/dev/null)
BLAS_DIR  ?= /usr/lib/$(MULTIARCH)/openblas-openmp
WARN    = -Wall -Wextra -Wshadow -Wno-unknown-pragmas -Wno-psabi $(if $(WERROR),-Werror)
CFLAGS ?= -O3 -g
ifdef SAN
BUILD  := $(BUILD)/san
CFLAGS := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
SAN_ENV = ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$(shell $(CC) -print-file-name=libasan.so) $(shell $(CC) -print-file-name=libubsan.so)"
endif
ALL_CFLAGS = $(CFLAGS) -std=gnu11 -march=$(ARCH) -fPIC -fopenmp -fno-math-errno -fno-trapping-math -ffp-contract=fast -fvisibility=default $(WARN)
LIBS    = -L$(BLAS_DIR) -Wl,-rpath,$(BLAS_DIR) -lopenblas -lm -lpthread
LUAJIT_CFLAGS = -I/usr/include/luajit-2.1

SOURCES = $(filter-out csrc/main.c,$(wildcard csrc/*.c))
HEADERS = $(wildcard csrc/*.h csrc/*.def)
OBJ32   = $(SOURCES:csrc/%.c=$(BUILD)/obj/%.o)
OBJ64   = $(SOURCES:csrc/%.c=$(BUILD)/obj64/%.o)

.PHONY: all deps demo test parity bench lint clean install
all: $(BUILD)/libtycho.so $(BUILD)/libtycho64.so tycho

$(BUILD)/obj/%.o: csrc/%.c $(HEADERS) | $(BUILD)/obj
	$(CC) $(ALL_CFLAGS) -c $< -o $@
$(BUILD)/obj64/%.o: csrc/%.c $(HEADERS) | $(BUILD)/obj64
	$(CC) $(ALL_CFLAGS) -DTYCHO_DOUBLE -c $< -o $@
$(BUILD)/libtycho.so: $(OBJ32)
	$(CC) $(ALL_CFLAGS) -shared -Wl,-Bsymbolic $^ $(LIBS) -o $@
$(BUILD)/libtycho64.so: $(OBJ64)
	$(CC) $(ALL_CFLAGS) -shared -Wl,-Bsymbolic $^ $(LIBS) -o $@
tycho: csrc/main.c
	$(CC) $(CFLAGS) -std=gnu11 $(WARN) $(LUAJIT_CFLAGS) $< -Wl,-E -lluajit-5.1 -o $@
$(BUILD)/obj $(BUILD)/obj64:
	mkdir -p $@

clean:
	rm -rf build tycho
