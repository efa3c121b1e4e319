// Streams and events: queues that run when something waits for them.
#include "emulator.h"

#include <algorithm>

namespace emulator {
namespace {

Schedule schedule = Schedule::when_waited_for;
const StreamRef null_stream = std::make_shared<Stream>();
std::vector<StreamRef> streams{null_stream}; // destroyed ones too, until they have no work left

struct Event {
    Point recorded;
    bool alive = true;
};
std::map<CUevent, std::shared_ptr<Event>> events;
std::map<CUstream, StreamRef> handles;
int waits_for_other_work = 0;
bool hangs = false;

CUresult run(const StreamRef& stream, std::uint64_t ticket) {
    while (stream->done < ticket && !stream->waiting.empty()) {
        if (broken) return broken;
        if (hangs) return breaks(CUDA_ERROR_LAUNCH_TIMEOUT, "something waits for work that hangs");
        const Work work = std::move(stream->waiting.front());
        stream->waiting.pop_front();
        const CUresult error = work();
        ++stream->done;
        if (error) return error;
    }
    return broken;
}

} // namespace

std::recursive_mutex lock;

StreamRef stream_of(CUstream handle) {
    if (handle == nullptr || handle == CU_STREAM_LEGACY || handle == CU_STREAM_PER_THREAD)
        return null_stream;
    const auto found = handles.find(handle);
    return found == handles.end() ? nullptr : found->second;
}

const std::vector<StreamRef>& every_stream() { return streams; }

CUresult issue(const StreamRef& stream, Work work) {
    if (stream->capture) {
        stream->capture->lanes[stream->lane].push_back({std::move(work), 0, 0});
        return CUDA_SUCCESS;
    }
    stream->waiting.push_back(std::move(work));
    ++stream->issued;
    return schedule == Schedule::at_once ? run(stream, stream->issued) : CUDA_SUCCESS;
}

CUresult run_until(const StreamRef& stream, std::uint64_t ticket) {
    // Only whoever waits from outside lets the others go first: what work waits for is given.
    if (schedule == Schedule::others_first && waits_for_other_work == 0) {
        const std::vector<StreamRef> others = streams;
        ++waits_for_other_work;
        for (const StreamRef& other : others)
            if (other != stream) run(other, other->issued);
        --waits_for_other_work;
    }
    ++waits_for_other_work;
    const CUresult error = run(stream, ticket);
    --waits_for_other_work;
    return error;
}

CUresult run_everything() {
    const std::vector<StreamRef> all = streams;
    for (const StreamRef& each : all)
        if (const CUresult error = run_until(each, each->issued)) return error;
    return broken;
}

void forget_all_work() {
    for (const StreamRef& each : streams) {
        each->waiting.clear();
        each->done = each->issued;
    }
}

CUresult spoils(const StreamRef& stream) {
    if (!stream->capture) return CUDA_SUCCESS;
    stream->capture->spoilt = true;
    return refuses(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "a call that waits, during a capture");
}

} // namespace emulator

using namespace emulator;

// 0 when waited for, 1 others first, 2 at once: see `Schedule`.
extern "C" void emulator_set_schedule(int which) {
    Locked held(lock);
    schedule = static_cast<Schedule>(which);
}

// From here on no work gets done, as if a kernel never ended; 0 lets it go on.
extern "C" void emulator_hang(int yes) {
    Locked held(lock);
    hangs = yes != 0;
}

// Ends the context with an error, as a kernel that failed does.
extern "C" void emulator_break() {
    Locked held(lock);
    breaks(CUDA_ERROR_LAUNCH_FAILED, "a test broke it");
}

CUresult cuLaunchHostFunc(CUstream handle, CUhostFn function, void* data) {
    Locked held(lock);
    if (const CUresult error = usable()) return error;
    const StreamRef stream = stream_of(handle);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    return issue(stream, [=] {
        function(data);
        return broken;
    });
}

CUresult cuStreamCreate(CUstream* handle, unsigned) {
    Locked held(lock);
    if (const CUresult error = usable()) return error;
    const auto stream = std::make_shared<Stream>();
    streams.erase(std::remove_if(streams.begin(), streams.end(),
                                 [](const StreamRef& s) {
                                     return s.use_count() == 1 && s->waiting.empty();
                                 }),
                  streams.end());
    streams.push_back(stream);
    *handle = reinterpret_cast<CUstream>(stream.get());
    handles[*handle] = stream;
    ++counters.streams;
    return CUDA_SUCCESS;
}
CUresult cuStreamCreateWithPriority(CUstream* handle, unsigned flags, int) {
    return cuStreamCreate(handle, flags);
}
// The work stays: who destroys a stream does not wait for it.
CUresult cuStreamDestroy(CUstream handle) {
    Locked held(lock);
    if (handles.erase(handle) == 0) return CUDA_ERROR_INVALID_HANDLE;
    --counters.streams;
    return CUDA_SUCCESS;
}
CUresult cuStreamSynchronize(CUstream handle) {
    Locked held(lock);
    if (const CUresult error = usable()) return error;
    const StreamRef stream = stream_of(handle);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    if (const CUresult error = spoils(stream)) return error;
    return run_until(stream, stream->issued);
}
CUresult cuStreamQuery(CUstream handle) {
    Locked held(lock);
    if (const CUresult error = usable()) return error;
    const StreamRef stream = stream_of(handle);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    if (const CUresult error = spoils(stream)) return error;
    return stream->waiting.empty() ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}
CUresult cuCtxSynchronize() {
    Locked held(lock);
    if (const CUresult error = usable()) return error;
    for (const StreamRef& each : every_stream())
        if (const CUresult error = spoils(each)) return error;
    return run_everything();
}

CUresult cuStreamWaitEvent(CUstream handle, CUevent event, unsigned) {
    Locked held(lock);
    if (const CUresult error = usable()) return error;
    const StreamRef stream = stream_of(handle);
    const auto found = events.find(event);
    if (!stream || found == events.end()) return CUDA_ERROR_INVALID_HANDLE;
    const Point point = found->second->recorded;
    if (point.capture) {
        Graph& graph = *point.capture;
        if (!stream->capture) { // forks: this stream is captured from here on
            stream->capture = point.capture;
            stream->lane = graph.lanes.size();
            graph.lanes.emplace_back();
            graph.joined.push_back(0);
        }
        if (stream->capture != point.capture) return CUDA_ERROR_STREAM_CAPTURE_MERGE;
        graph.lanes[stream->lane].push_back({{}, point.lane, std::size_t(point.at)});
        if (stream->lane == 0)
            graph.joined[point.lane] = std::max(graph.joined[point.lane], std::size_t(point.at));
        return CUDA_SUCCESS;
    }
    if (stream->capture) {
        stream->capture->spoilt = true;
        return refuses(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "a capture waits for what is outside");
    }
    if (!point.stream) return CUDA_SUCCESS; // never recorded: nothing to wait for
    return issue(stream, [point] { return run_until(point.stream, point.at); });
}

CUresult cuEventCreate(CUevent* handle, unsigned) {
    Locked held(lock);
    if (const CUresult error = usable()) return error;
    const auto event = std::make_shared<Event>();
    *handle = reinterpret_cast<CUevent>(event.get());
    events[*handle] = event;
    ++counters.events;
    return CUDA_SUCCESS;
}
CUresult cuEventDestroy(CUevent handle) {
    Locked held(lock);
    if (events.erase(handle) == 0) return CUDA_ERROR_INVALID_HANDLE;
    --counters.events;
    return CUDA_SUCCESS;
}
CUresult cuEventRecord(CUevent handle, CUstream stream_handle) {
    Locked held(lock);
    if (const CUresult error = usable()) return error;
    const StreamRef stream = stream_of(stream_handle);
    const auto found = events.find(handle);
    if (!stream || found == events.end()) return CUDA_ERROR_INVALID_HANDLE;
    Point& point = found->second->recorded;
    point = {stream, stream->issued, stream->capture, stream->lane};
    if (stream->capture) point.at = stream->capture->lanes[stream->lane].size();
    return CUDA_SUCCESS;
}
CUresult cuEventSynchronize(CUevent handle) {
    Locked held(lock);
    if (const CUresult error = usable()) return error;
    const auto found = events.find(handle);
    if (found == events.end()) return CUDA_ERROR_INVALID_HANDLE;
    const Point point = found->second->recorded;
    if (point.capture) return CUDA_ERROR_CAPTURED_EVENT;
    return point.stream ? run_until(point.stream, point.at) : CUDA_SUCCESS;
}
CUresult cuEventQuery(CUevent handle) {
    Locked held(lock);
    if (const CUresult error = usable()) return error;
    const auto found = events.find(handle);
    if (found == events.end()) return CUDA_ERROR_INVALID_HANDLE;
    const Point point = found->second->recorded;
    if (point.capture) return CUDA_ERROR_CAPTURED_EVENT;
    if (!point.stream || point.stream->done >= point.at) return CUDA_SUCCESS;
    // Whoever only asks would ask for ever: time passes, and one piece of the work is done after
    // the answer was given.
    if (!hangs)
        if (const CUresult error = run_until(point.stream, point.stream->done + 1)) return error;
    return CUDA_ERROR_NOT_READY;
}
// Time is not emulated; that both events have happened is checked.
CUresult cuEventElapsedTime(float* milliseconds, CUevent first, CUevent second) {
    *milliseconds = 1.0f;
    const CUresult error = cuEventQuery(first);
    return error ? error : cuEventQuery(second);
}
