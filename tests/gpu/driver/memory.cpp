// Device and page-locked memory: poisoned, fenced by pages that cannot be touched, and counted.
#include "emulator.h"

#include <sys/mman.h>

#include <cstring>

namespace emulator {
namespace {

constexpr std::size_t PAGE = 4096;
constexpr std::size_t ALIGNED = 256; // as a chip aligns
constexpr std::size_t KEPT = 4096;   // freed buffers whose addresses stay forbidden
// A NaN as float, double, two halves and two bfloat16; as int32 a row that no bank has.
constexpr std::uint32_t POISON = 0x7ff5fff5;
constexpr unsigned char FENCE = 0xa7;

std::size_t round_up(std::size_t n, std::size_t step) { return (n + step - 1) / step * step; }

struct Buffer {
    Place place;
    std::size_t bytes;
    unsigned char* pages; // two more than can be touched: the first and the last
    std::size_t pages_bytes;
    unsigned flags;
};

std::map<std::uintptr_t, Buffer> living; // by address
std::deque<Buffer> freed;

// The bytes of the touchable pages that are not the buffer's hold FENCE. A buffer ends as near to
// the last page as its alignment lets it, so that most reads beyond the end fault as well.
bool fences_hold(std::uintptr_t address, const Buffer& buffer) {
    const unsigned char* begin = buffer.pages + PAGE;
    const unsigned char* end = buffer.pages + buffer.pages_bytes - PAGE;
    const auto* data = reinterpret_cast<const unsigned char*>(address);
    for (const unsigned char* p = begin; p < data; ++p)
        if (*p != FENCE) return false;
    for (const unsigned char* p = data + buffer.bytes; p < end; ++p)
        if (*p != FENCE) return false;
    return true;
}

CUresult allocate(Place place, std::size_t bytes, unsigned flags, void** address) {
    if (const CUresult error = usable()) return error;
    if (bytes == 0 || address == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const bool on_device = place == Place::on_device;
    if (on_device && counters.device_bytes + bytes > device.memory_bytes)
        return CUDA_ERROR_OUT_OF_MEMORY;
    const std::size_t room = round_up(bytes, ALIGNED), pages_bytes = round_up(room, PAGE) + 2 * PAGE;
    void* mapped = mmap(nullptr, pages_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
    auto* pages = static_cast<unsigned char*>(mapped);
    mprotect(pages + PAGE, pages_bytes - 2 * PAGE, PROT_READ | PROT_WRITE);
    std::memset(pages + PAGE, FENCE, pages_bytes - 2 * PAGE);
    unsigned char* data = pages + pages_bytes - PAGE - room;
    for (std::size_t i = 0; i < bytes; i += sizeof POISON)
        std::memcpy(data + i, &POISON, bytes - i < sizeof POISON ? bytes - i : sizeof POISON);
    living[reinterpret_cast<std::uintptr_t>(data)] = {place, bytes, pages, pages_bytes, flags};
    (on_device ? counters.device_buffers : counters.page_locked_buffers) += 1;
    if (on_device) counters.device_bytes += long(bytes);
    *address = data;
    return CUDA_SUCCESS;
}

// Work that still needs the buffer is not waited for: it will find it gone.
CUresult release(Place place, std::uintptr_t address) {
    const auto found = living.find(address);
    if (found == living.end() || found->second.place != place)
        return refuses(CUDA_ERROR_INVALID_VALUE, "what is freed is no buffer, or no longer");
    const bool held = fences_hold(address, found->second);
    const Buffer buffer = found->second;
    living.erase(found);
    (place == Place::on_device ? counters.device_buffers : counters.page_locked_buffers) -= 1;
    if (place == Place::on_device) counters.device_bytes -= long(buffer.bytes);
    mprotect(buffer.pages, buffer.pages_bytes, PROT_NONE);
    madvise(buffer.pages, buffer.pages_bytes, MADV_DONTNEED);
    freed.push_back(buffer);
    if (freed.size() > KEPT) {
        munmap(freed.front().pages, freed.front().pages_bytes);
        freed.pop_front();
    }
    return held ? CUDA_SUCCESS : breaks(CUDA_ERROR_ILLEGAL_ADDRESS, "a write beyond a buffer");
}

struct Copy {
    void* to;
    const void* from;
    std::size_t bytes;
    bool to_device, from_device, asynchronous;
};

// Looked at when a copy is issued, and once more when it runs: a buffer may be gone by then.
bool ends_are_buffers(const Copy& copy) {
    const auto lies = [&](const void* p, bool on_device) {
        if (!on_device && !copy.asynchronous) return true;
        const Place place = on_device ? Place::on_device : Place::page_locked;
        return within(place, reinterpret_cast<std::uintptr_t>(p), copy.bytes);
    };
    return lies(copy.to, copy.to_device) && lies(copy.from, copy.from_device);
}

CUresult run_copy(const Copy& copy) {
    if (!ends_are_buffers(copy))
        return breaks(CUDA_ERROR_ILLEGAL_ADDRESS, "a buffer was freed before a copy had run");
    std::memmove(copy.to, copy.from, copy.bytes);
    return CUDA_SUCCESS;
}

CUresult copies(CUstream handle, const Copy& copy) {
    Locked held(lock);
    if (const CUresult error = usable()) return error;
    const StreamRef stream = stream_of(handle);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    if (!ends_are_buffers(copy))
        return refuses(CUDA_ERROR_INVALID_VALUE,
                       "a copy goes beyond a device buffer, or is asynchronous and its host memory "
                       "is not page-locked");
    if (copy.asynchronous) return issue(stream, [copy] { return run_copy(copy); });
    for (const StreamRef& each : every_stream())
        if (const CUresult error = spoils(each)) return error;
    if (const CUresult error = run_until(stream, stream->issued)) return error;
    return run_copy(copy);
}

template <class Element>
CUresult fills(CUdeviceptr to, Element value, std::size_t n, CUstream handle, bool asynchronous) {
    Locked held(lock);
    if (const CUresult error = usable()) return error;
    const StreamRef stream = stream_of(handle);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    const std::size_t bytes = n * sizeof value;
    if (!within(Place::on_device, to, bytes) || to % sizeof value)
        return refuses(CUDA_ERROR_INVALID_VALUE, "a fill goes beyond a device buffer");
    const Work work = [=] {
        if (!within(Place::on_device, to, bytes))
            return breaks(CUDA_ERROR_ILLEGAL_ADDRESS, "a buffer was freed before a fill had run");
        for (std::size_t i = 0; i < n; ++i)
            std::memcpy(reinterpret_cast<Element*>(to) + i, &value, sizeof value);
        return CUDA_SUCCESS;
    };
    const CUresult error = issue(stream, work);
    return error || asynchronous ? error : run_until(stream, stream->issued);
}

const void* host(CUdeviceptr p) { return reinterpret_cast<const void*>(p); }
void* writable(CUdeviceptr p) { return reinterpret_cast<void*>(p); }

} // namespace

Counters counters;

bool within(Place place, std::uintptr_t address, std::size_t bytes) {
    auto next = living.upper_bound(address);
    if (next == living.begin()) return false;
    const auto& [begin, buffer] = *--next;
    return buffer.place == place && address - begin <= buffer.bytes &&
           bytes <= buffer.bytes - (address - begin);
}

std::string overrun() {
    for (const auto& [address, buffer] : living)
        if (!fences_hold(address, buffer))
            return "a buffer of " + std::to_string(buffer.bytes) + " bytes";
    return {};
}

} // namespace emulator

using namespace emulator;

CUresult cuMemAlloc(CUdeviceptr* p, size_t bytes) {
    Locked held(lock);
    void* address = nullptr;
    const CUresult error = allocate(Place::on_device, bytes, 0, &address);
    if (!error) *p = reinterpret_cast<CUdeviceptr>(address);
    return error;
}
CUresult cuMemFree(CUdeviceptr p) {
    Locked held(lock);
    return release(Place::on_device, p);
}
CUresult cuMemHostAlloc(void** p, size_t bytes, unsigned flags) {
    Locked held(lock);
    return allocate(Place::page_locked, bytes, flags, p);
}
CUresult cuMemAllocHost(void** p, size_t bytes) { return cuMemHostAlloc(p, bytes, 0); }
CUresult cuMemFreeHost(void* p) {
    Locked held(lock);
    return release(Place::page_locked, reinterpret_cast<std::uintptr_t>(p));
}
CUresult cuMemHostGetFlags(unsigned* flags, void* p) {
    Locked held(lock);
    const auto found = living.find(reinterpret_cast<std::uintptr_t>(p));
    if (found == living.end()) return CUDA_ERROR_INVALID_VALUE;
    *flags = found->second.flags;
    return CUDA_SUCCESS;
}
CUresult cuMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
    Locked held(lock);
    *total_bytes = device.memory_bytes;
    *free_bytes = device.memory_bytes - std::size_t(counters.device_bytes);
    return usable();
}

CUresult cuMemcpyHtoD(CUdeviceptr to, const void* from, size_t n) {
    return copies(nullptr, {writable(to), from, n, true, false, false});
}
CUresult cuMemcpyDtoH(void* to, CUdeviceptr from, size_t n) {
    return copies(nullptr, {to, host(from), n, false, true, false});
}
CUresult cuMemcpyDtoD(CUdeviceptr to, CUdeviceptr from, size_t n) {
    return copies(nullptr, {writable(to), host(from), n, true, true, false});
}
CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, size_t n, CUstream stream) {
    return copies(stream, {writable(to), from, n, true, false, true});
}
CUresult cuMemcpyDtoHAsync(void* to, CUdeviceptr from, size_t n, CUstream stream) {
    return copies(stream, {to, host(from), n, false, true, true});
}
CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t n, CUstream stream) {
    return copies(stream, {writable(to), host(from), n, true, true, true});
}
CUresult cuMemsetD8(CUdeviceptr to, unsigned char value, size_t n) {
    return fills(to, value, n, nullptr, false);
}
CUresult cuMemsetD32(CUdeviceptr to, unsigned value, size_t n) {
    return fills(to, value, n, nullptr, false);
}
CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t n, CUstream stream) {
    return fills(to, value, n, stream, true);
}
CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t n, CUstream stream) {
    return fills(to, value, n, stream, true);
}
