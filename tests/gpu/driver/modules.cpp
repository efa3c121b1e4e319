// Modules are shared libraries for this CPU, as tests/gpu/shim builds them; launches run them.
//
// A module exports `kernel_argument_bytes` and `kernel_launch`: see tests/gpu/shim.
#include "emulator.h"

#include <csetjmp>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <elf.h>
#include <unistd.h>

namespace emulator {
namespace {

#if defined(__x86_64__)
constexpr unsigned THIS_CPU = EM_X86_64;
#elif defined(__aarch64__)
constexpr unsigned THIS_CPU = EM_AARCH64;
#endif

constexpr int SHARED_UNLESS_RAISED = 48 * 1024;

using ArgumentBytes = std::size_t (*)(const char*);
using Launch = const char* (*)(const char*, const void*, const unsigned*, const unsigned*,
                               std::size_t);

struct Module;

struct Function {
    std::shared_ptr<Module> module;
    std::string name;
    std::size_t argument_bytes;
    int shared_limit = SHARED_UNLESS_RAISED;
};

struct Module {
    void* library = nullptr;
    ArgumentBytes argument_bytes = nullptr;
    Launch launch = nullptr;
    bool loaded = true;
    std::map<std::string, std::unique_ptr<Function>> functions;
};

std::map<CUmodule, std::shared_ptr<Module>> modules;
std::map<CUfunction, Function*> functions;

int most_shared_bytes() {
    if (device.major == 7) return 64 * 1024;
    if (device.major == 8) return (device.minor == 0 || device.minor == 7 ? 163 : 99) * 1024;
    return (device.major == 12 ? 99 : 227) * 1024;
}

// Nobody says how long an image is: a shared library ends with its table of sections.
std::size_t bytes_of(const Elf64_Ehdr& head) {
    return head.e_shoff + std::size_t{head.e_shnum} * head.e_shentsize;
}

// A file of its own for each image: the loader takes what has the name of an open library for it.
void* open_library(const void* image, std::size_t bytes) {
    char path[] = "/tmp/emulated_module_XXXXXX";
    const int file = mkstemp(path);
    if (file < 0) return nullptr;
    std::size_t written = 0;
    while (written < bytes) {
        const auto n = write(file, static_cast<const char*>(image) + written, bytes - written);
        if (n <= 0) break;
        written += std::size_t(n);
    }
    close(file);
    void* library = written == bytes ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
    if (!library) refuses(CUDA_ERROR_INVALID_IMAGE, std::string("dlopen: ") + dlerror());
    unlink(path);
    return library;
}

sigjmp_buf after_fault;
void fault(int) { siglongjmp(after_fault, 1); }

// Calls a kernel; an access to what may not be touched ends it.
std::string call(const Function& f, const unsigned char* argument, const unsigned* grid,
                 const unsigned* block, std::size_t shared_bytes) {
    struct sigaction catches {}, segv, bus;
    catches.sa_handler = fault;
    sigaction(SIGSEGV, &catches, &segv);
    sigaction(SIGBUS, &catches, &bus);
    std::string failure;
    if (sigsetjmp(after_fault, 1) == 0) {
        const char* said = f.module->launch(f.name.c_str(), argument, grid, block, shared_bytes);
        if (said) failure = said;
    } else {
        failure = "an access to memory that is no buffer's";
    }
    sigaction(SIGSEGV, &segv, nullptr);
    sigaction(SIGBUS, &bus, nullptr);
    return failure;
}

struct Task {
    const Function* function;
    std::shared_ptr<Module> module; // held: a module may be unloaded before its work has run
    std::vector<unsigned char> argument;
    unsigned grid[3], block[3];
    unsigned shared_bytes;
};

CUresult run_kernel(const Task& task) {
    const Function& f = *task.function;
    if (!task.module->loaded)
        return breaks(CUDA_ERROR_ILLEGAL_ADDRESS, "a module was unloaded before " + f.name);
    ++counters.launches;
    const std::string failure =
        call(f, task.argument.data(), task.grid, task.block, task.shared_bytes);
    if (!failure.empty()) return breaks(CUDA_ERROR_ILLEGAL_ADDRESS, f.name + ": " + failure);
    const std::string hurt = overrun();
    if (!hurt.empty())
        return breaks(CUDA_ERROR_ILLEGAL_ADDRESS, f.name + " wrote beyond " + hurt);
    return CUDA_SUCCESS;
}

// pycuda hands over one packed buffer, cuLaunchKernel's other callers a pointer an argument; our
// kernels take one struct, so that the first pointer is the same thing.
bool take_argument(Task& task, void** pointers, void** extra) {
    const std::size_t expected = task.function->argument_bytes;
    const void* bytes = pointers ? pointers[0] : nullptr;
    std::size_t n = expected;
    for (int i = 0; extra && extra[i] != CU_LAUNCH_PARAM_END; i += 2) {
        if (extra[i] == CU_LAUNCH_PARAM_BUFFER_POINTER) bytes = extra[i + 1];
        if (extra[i] == CU_LAUNCH_PARAM_BUFFER_SIZE) n = *static_cast<std::size_t*>(extra[i + 1]);
    }
    if (!bytes || n != expected) return false;
    const auto* begin = static_cast<const unsigned char*>(bytes);
    task.argument.assign(begin, begin + n);
    return true;
}

bool fits(const Task& task) {
    const unsigned *g = task.grid, *b = task.block;
    return g[0] && g[1] && g[2] && b[0] && b[1] && b[2] && g[1] <= 65535 && g[2] <= 65535 &&
           b[2] <= 64 && std::size_t{b[0]} * b[1] * b[2] <= 1024 &&
           task.shared_bytes <= unsigned(task.function->shared_limit);
}

} // namespace
} // namespace emulator

using namespace emulator;

CUresult cuModuleLoadData(CUmodule* handle, const void* image) {
    Locked held(lock);
    if (const CUresult error = usable()) return error;
    Elf64_Ehdr head;
    std::memcpy(&head, image, 4);
    if (std::memcmp(&head, ELFMAG, 4) != 0) return CUDA_ERROR_NO_BINARY_FOR_GPU;
    std::memcpy(&head, image, sizeof head);
    if (head.e_machine != THIS_CPU) return CUDA_ERROR_NO_BINARY_FOR_GPU;
    const auto module = std::make_shared<Module>();
    module->library = open_library(image, bytes_of(head));
    if (!module->library) return CUDA_ERROR_INVALID_IMAGE;
    module->argument_bytes =
        reinterpret_cast<ArgumentBytes>(dlsym(module->library, "kernel_argument_bytes"));
    module->launch = reinterpret_cast<Launch>(dlsym(module->library, "kernel_launch"));
    if (!module->argument_bytes || !module->launch) return CUDA_ERROR_INVALID_IMAGE;
    *handle = reinterpret_cast<CUmodule>(module.get());
    modules[*handle] = module;
    ++counters.modules;
    return CUDA_SUCCESS;
}
CUresult cuModuleLoadDataEx(CUmodule* handle, const void* image, unsigned n, CUjit_option* options,
                            void** values) {
    // pycuda prints what the compiler of the driver had to say: nothing.
    for (unsigned i = 0; i < n; ++i)
        if (options[i] == CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES ||
            options[i] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES)
            values[i] = nullptr;
    return cuModuleLoadData(handle, image);
}
CUresult cuModuleUnload(CUmodule handle) {
    Locked held(lock);
    const auto found = modules.find(handle);
    if (found == modules.end()) return CUDA_ERROR_INVALID_HANDLE;
    // The library stays open: work that comes too late must be found, and not crash.
    found->second->loaded = false;
    for (const auto& [name, function] : found->second->functions)
        functions.erase(reinterpret_cast<CUfunction>(function.get()));
    modules.erase(found);
    --counters.modules;
    return CUDA_SUCCESS;
}
CUresult cuModuleGetFunction(CUfunction* handle, CUmodule module_handle, const char* name) {
    Locked held(lock);
    if (const CUresult error = usable()) return error;
    const auto found = modules.find(module_handle);
    if (found == modules.end()) return CUDA_ERROR_INVALID_HANDLE;
    const std::size_t argument_bytes = found->second->argument_bytes(name);
    if (argument_bytes == 0) return CUDA_ERROR_NOT_FOUND;
    auto& function = found->second->functions[name];
    if (!function) function.reset(new Function{found->second, name, argument_bytes});
    *handle = reinterpret_cast<CUfunction>(function.get());
    functions[*handle] = function.get();
    return CUDA_SUCCESS;
}

CUresult cuFuncSetAttribute(CUfunction handle, CUfunction_attribute attribute, int value) {
    Locked held(lock);
    const auto found = functions.find(handle);
    if (found == functions.end()) return CUDA_ERROR_INVALID_HANDLE;
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_SUCCESS;
    if (value > most_shared_bytes())
        return refuses(CUDA_ERROR_INVALID_VALUE, "more shared memory than the chip has");
    found->second->shared_limit = value;
    return CUDA_SUCCESS;
}
CUresult cuFuncGetAttribute(int* value, CUfunction_attribute attribute, CUfunction handle) {
    Locked held(lock);
    const auto found = functions.find(handle);
    if (found == functions.end()) return CUDA_ERROR_INVALID_HANDLE;
    *value = attribute == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK           ? 1024
             : attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES ? found->second->shared_limit
                                                                            : 0;
    return CUDA_SUCCESS;
}
// pycuda remembers a block's shape in the function before each launch, and says it again then.
CUresult cuFuncSetBlockShape(CUfunction, int, int, int) { return usable(); }

CUresult cuLaunchKernel(CUfunction handle, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                        unsigned by, unsigned bz, unsigned shared_bytes, CUstream stream_handle,
                        void** pointers, void** extra) {
    Locked held(lock);
    if (const CUresult error = usable()) return error;
    const auto found = functions.find(handle);
    const StreamRef stream = stream_of(stream_handle);
    if (found == functions.end() || !stream) return CUDA_ERROR_INVALID_HANDLE;
    Task task{found->second, found->second->module, {}, {gx, gy, gz}, {bx, by, bz}, shared_bytes};
    if (!take_argument(task, pointers, extra))
        return refuses(CUDA_ERROR_INVALID_VALUE, found->second->name + ": arguments of another size");
    if (!fits(task))
        return refuses(CUDA_ERROR_INVALID_VALUE, found->second->name + ": no such grid or block");
    return issue(stream, [task] { return run_kernel(task); });
}
