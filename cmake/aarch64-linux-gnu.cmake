# Cross build for aarch64 with Debian's gcc-aarch64-linux-gnu and the packages zlib1g-dev:arm64, libcjson-dev:arm64,
# libprotobuf-c-dev:arm64, libcunit1-dev:arm64 and libgomp1:arm64; programs run under qemu-user. Their loader and
# libraries are those of the arm64 packages: with -L /usr/aarch64-linux-gnu they would get the loader of
# libc6-arm64-cross, which is of another build than libc6:arm64, and pthread_create would never return.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64)
