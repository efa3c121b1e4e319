// One device, its contexts and the errors; and what tests ask the emulator, as `emulator_…`.
#include "emulator.h"

#include <cstdio>
#include <cstring>
#include <string>

namespace emulator {
namespace {

struct Context {
    bool alive = true;
};

// Never freed: handles of destroyed contexts must be found dead, not dangling.
std::vector<std::unique_ptr<Context>> contexts;
Context* primary = nullptr;
int primary_holders = 0;
thread_local std::vector<Context*> current;
std::string failure;

CUcontext handle_of(Context* context) { return reinterpret_cast<CUcontext>(context); }
Context* context_of(CUcontext handle) { return reinterpret_cast<Context*>(handle); }

Context* make_context() {
    contexts.push_back(std::make_unique<Context>());
    ++counters.contexts;
    return contexts.back().get();
}

void end(Context* context) {
    if (!context->alive) return;
    context->alive = false;
    --counters.contexts;
    if (broken) forget_all_work(); // it will never be done, and is not to be done in the next one
    broken = CUDA_SUCCESS;         // an error ends a context; the next one starts afresh
}

} // namespace

CUresult broken = CUDA_SUCCESS;
Device device;

CUresult breaks(CUresult error, const std::string& why) {
    if (!broken) broken = refuses(error, why);
    return broken;
}

CUresult refuses(CUresult error, const std::string& why) {
    failure = why;
    std::fprintf(stderr, "emulated driver: %s\n", why.c_str());
    return error;
}

CUresult usable() {
    if (current.empty()) return CUDA_ERROR_INVALID_CONTEXT;
    if (!current.back()->alive) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    return broken;
}

} // namespace emulator

using namespace emulator;

// --- the device ----------------------------------------------------------------------------------

CUresult cuInit(unsigned) { return CUDA_SUCCESS; }
CUresult cuDriverGetVersion(int* version) {
    *version = CUDA_VERSION;
    return CUDA_SUCCESS;
}
CUresult cuDeviceGetCount(int* n) {
    *n = 1;
    return CUDA_SUCCESS;
}
CUresult cuDeviceGet(CUdevice* handle, int ordinal) {
    *handle = 0;
    return ordinal == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}
CUresult cuDeviceGetName(char* name, int bytes, CUdevice) {
    std::snprintf(name, std::size_t(bytes), "emulated sm_%d%d", device.major, device.minor);
    return CUDA_SUCCESS;
}
CUresult cuDeviceTotalMem(size_t* bytes, CUdevice) {
    *bytes = device.memory_bytes;
    return CUDA_SUCCESS;
}
CUresult cuDeviceComputeCapability(int* major, int* minor, CUdevice) {
    *major = device.major, *minor = device.minor;
    return CUDA_SUCCESS;
}
CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = device.major; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = device.minor; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = device.multiprocessors; break;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = 1024; break;
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING: *value = 1; break;
    default: return refuses(CUDA_ERROR_NOT_SUPPORTED, "an attribute that is not emulated");
    }
    return CUDA_SUCCESS;
}

// --- contexts ------------------------------------------------------------------------------------

CUresult cuCtxCreate(CUcontext* handle, CUctxCreateParams*, unsigned, CUdevice) {
    Locked held(lock);
    current.push_back(make_context());
    *handle = handle_of(current.back());
    return CUDA_SUCCESS;
}
CUresult cuCtxDestroy(CUcontext handle) {
    Locked held(lock);
    end(context_of(handle));
    if (!current.empty() && current.back() == context_of(handle)) current.pop_back();
    return CUDA_SUCCESS;
}
CUresult cuCtxDetach(CUcontext handle) { return cuCtxDestroy(handle); }
CUresult cuDevicePrimaryCtxRetain(CUcontext* handle, CUdevice) {
    Locked held(lock);
    if (primary_holders++ == 0) primary = make_context();
    *handle = handle_of(primary);
    return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease(CUdevice) {
    Locked held(lock);
    if (primary_holders == 0) return CUDA_ERROR_INVALID_CONTEXT;
    if (--primary_holders == 0) end(primary);
    return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxGetState(CUdevice, unsigned* flags, int* active) {
    *flags = 0, *active = primary_holders > 0;
    return CUDA_SUCCESS;
}
CUresult cuCtxPushCurrent(CUcontext handle) {
    current.push_back(context_of(handle));
    return CUDA_SUCCESS;
}
CUresult cuCtxPopCurrent(CUcontext* handle) {
    if (current.empty()) return CUDA_ERROR_INVALID_CONTEXT;
    if (handle) *handle = handle_of(current.back());
    current.pop_back();
    return CUDA_SUCCESS;
}
CUresult cuCtxGetCurrent(CUcontext* handle) {
    *handle = current.empty() ? nullptr : handle_of(current.back());
    return CUDA_SUCCESS;
}
CUresult cuCtxSetCurrent(CUcontext handle) {
    if (!current.empty()) current.pop_back();
    if (handle) current.push_back(context_of(handle));
    return CUDA_SUCCESS;
}
CUresult cuCtxGetDevice(CUdevice* handle) {
    *handle = 0;
    return current.empty() ? CUDA_ERROR_INVALID_CONTEXT : CUDA_SUCCESS;
}
CUresult cuCtxGetApiVersion(CUcontext, unsigned* version) {
    *version = CUDA_VERSION;
    return CUDA_SUCCESS;
}

// --- errors --------------------------------------------------------------------------------------

CUresult cuGetErrorString(CUresult error, const char** text) {
    thread_local std::string said;
    said = "emulated error " + std::to_string(error) + (failure.empty() ? "" : ": " + failure);
    *text = said.c_str();
    return CUDA_SUCCESS;
}
CUresult cuGetErrorName(CUresult error, const char** text) { return cuGetErrorString(error, text); }

// --- what tests ask --------------------------------------------------------------------------------

extern "C" void emulator_set_device(int major, int minor, int multiprocessors, size_t bytes) {
    Locked held(lock);
    device = {major, minor, multiprocessors, bytes};
}

// In the order of `Counters`.
extern "C" void emulator_counters(long* values) {
    Locked held(lock);
    std::memcpy(values, &counters, sizeof counters);
}

// What was refused or broken last; valid until the next call of the driver.
extern "C" const char* emulator_failure() { return failure.c_str(); }
