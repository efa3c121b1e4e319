// An emulated libcuda.so.1, under which pycuda runs unmodified where there is no GPU.
//
// It is stricter than a chip, so that what runs here has not run by luck:
// - Work on a stream runs only when something waits for it (`Schedule`), so a missing
//   synchronisation is wrong every time, and not once in a thousand frames.
// - Streams are ordered by events alone. The null stream does not wait for the others, nor they for
//   it; a synchronous copy waits for nothing but the null stream; freeing waits for nothing.
// - Memory is poisoned, every buffer ends at a page that cannot be touched, and what lies between is
//   checked after each kernel.
// - An asynchronous copy needs page-locked host memory: with other memory a chip would wait in
//   secret, or not.
// - What is not freed is counted, and what is freed stays unmapped.
//
// Not emulated: time, caches, atomicity between kernels (they run one after another), arrays and
// textures, peers, virtual memory management.
#pragma once
#include <cuda.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace emulator {

// Everything below is guarded by it; recursive, because work may wait for work.
extern std::recursive_mutex lock;
using Locked = std::lock_guard<std::recursive_mutex>;

// --- errors (contexts.cpp) -----------------------------------------------------------------------

// The error that ended the context: as on a chip, every later call returns it.
extern CUresult broken;

// Breaks the context, says why on stderr and keeps it for `emulator_failure`.
CUresult breaks(CUresult error, const std::string& why);

// Refuses a call and says why on stderr; the context goes on.
CUresult refuses(CUresult error, const std::string& why);

// What a call needs that works in a context: one that is current, alive and not broken.
CUresult usable();

struct Device {
    int major = 8, minor = 6, multiprocessors = 4;
    std::size_t memory_bytes = std::size_t{1} << 30;
};
extern Device device;

// --- memory (memory.cpp) -------------------------------------------------------------------------

enum class Place { on_device, page_locked };

// Whether [address, address + bytes) lies within one living buffer.
bool within(Place place, std::uintptr_t address, std::size_t bytes);

// The name of what was written beyond the end or before the beginning of a buffer; empty if nothing.
std::string overrun();

// --- streams and graphs (streams.cpp, graphs.cpp) --------------------------------------------------

using Work = std::function<CUresult()>;

// Which of the orders that the events allow is taken.
enum class Schedule {
    when_waited_for, // a stream runs when something waits for it, as far as that needs
    others_first,    // the same, but whatever may run on the other streams runs before it
    at_once,         // as if the chip were infinitely fast
};

struct Graph;

struct Stream {
    std::deque<Work> waiting;
    std::uint64_t issued = 0, done = 0;
    std::shared_ptr<Graph> capture; // what is issued goes here instead while it is set
    std::size_t lane = 0;           // of the capture
};
using StreamRef = std::shared_ptr<Stream>;

// A point on a stream, or on a lane of a graph that is being captured; nothing when not recorded.
struct Point {
    StreamRef stream;
    std::uint64_t at = 0;
    std::shared_ptr<Graph> capture;
    std::size_t lane = 0;
};

// A captured graph: one list of work a captured stream; what a lane waits for is work too.
struct Graph {
    struct Step {
        Work work;             // or, when empty, a wait:
        std::size_t lane = 0;  // for this lane
        std::size_t until = 0; // to have done so many steps
    };
    std::vector<std::vector<Step>> lanes;
    std::vector<std::size_t> joined; // how many steps of each lane the first lane waits for
    bool spoilt = false;             // by a call that a capture cannot hold
};

// The stream of a handle; null if there is none.
StreamRef stream_of(CUstream handle);
const std::vector<StreamRef>& every_stream();

// Puts work at a stream's end, or into what it captures.
CUresult issue(const StreamRef& stream, Work work);

// Runs a stream's work until `ticket` pieces of it are done.
CUresult run_until(const StreamRef& stream, std::uint64_t ticket);
CUresult run_everything();

// Drops whatever waits on any stream: its context has ended with an error.
void forget_all_work();

// Refuses what would wait for a stream whose work is being captured.
CUresult spoils(const StreamRef& stream);

// --- counters ----------------------------------------------------------------------------------

// How many of each kind live; `launches` is how many kernels have run.
struct Counters {
    long device_buffers = 0, device_bytes = 0, page_locked_buffers = 0, streams = 0, events = 0;
    long modules = 0, graphs = 0, contexts = 0, launches = 0;
};
extern Counters counters;

} // namespace emulator
