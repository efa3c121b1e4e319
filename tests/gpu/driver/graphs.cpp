// Capture of streams into graphs, and their replay.
#include "emulator.h"

#include <dlfcn.h>

namespace emulator {
namespace {

std::map<void*, std::shared_ptr<Graph>> graphs; // templates and executable ones

// Runs a lane until so many of its steps are done; `done` counts the steps of each lane.
CUresult run_lane(const Graph& graph, std::size_t lane, std::size_t until,
                  std::vector<std::size_t>& done) {
    while (done[lane] < until) {
        const Graph::Step& step = graph.lanes[lane][done[lane]++];
        const CUresult error =
            step.work ? step.work() : run_lane(graph, step.lane, step.until, done);
        if (error) return error;
    }
    return CUDA_SUCCESS;
}

template <class Handle> Handle keep(std::shared_ptr<Graph> graph) {
    // Each handle is an object of its own: what is destroyed once is not to be used again.
    const auto copy = std::make_shared<Graph>(*graph);
    graphs[copy.get()] = copy;
    ++counters.graphs;
    return reinterpret_cast<Handle>(copy.get());
}

std::shared_ptr<Graph> graph_of(void* handle) {
    const auto found = graphs.find(handle);
    return found == graphs.end() ? nullptr : found->second;
}

CUresult forget(void* handle) {
    Locked held(lock);
    if (graphs.erase(handle) == 0) return CUDA_ERROR_INVALID_HANDLE;
    --counters.graphs;
    return CUDA_SUCCESS;
}

} // namespace
} // namespace emulator

using namespace emulator;

CUresult cuStreamBeginCapture(CUstream handle, CUstreamCaptureMode) {
    Locked held(lock);
    if (const CUresult error = usable()) return error;
    const StreamRef stream = stream_of(handle);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    if (stream == stream_of(nullptr) || stream->capture)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    stream->capture = std::make_shared<Graph>();
    stream->capture->lanes.resize(1);
    stream->capture->joined.resize(1);
    stream->lane = 0;
    return CUDA_SUCCESS;
}

CUresult cuStreamEndCapture(CUstream handle, CUgraph* graph) {
    Locked held(lock);
    const StreamRef stream = stream_of(handle);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    if (!stream->capture) return CUDA_ERROR_ILLEGAL_STATE;
    if (stream->lane != 0) return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
    const std::shared_ptr<Graph> captured = stream->capture;
    for (const StreamRef& each : every_stream())
        if (each->capture == captured) each->capture = nullptr;
    *graph = nullptr;
    if (captured->spoilt) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    for (std::size_t lane = 1; lane < captured->lanes.size(); ++lane)
        if (captured->joined[lane] < captured->lanes[lane].size())
            return refuses(CUDA_ERROR_STREAM_CAPTURE_UNJOINED,
                           "a captured stream was left running");
    *graph = keep<CUgraph>(captured);
    return CUDA_SUCCESS;
}

CUresult cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus* status) {
    Locked held(lock);
    const StreamRef stream = stream_of(handle);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    *status = !stream->capture          ? CU_STREAM_CAPTURE_STATUS_NONE
              : stream->capture->spoilt ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                        : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    return CUDA_SUCCESS;
}

CUresult cuGraphInstantiate(CUgraphExec* executable, CUgraph handle, unsigned long long) {
    Locked held(lock);
    if (const CUresult error = usable()) return error;
    const auto graph = graph_of(handle);
    if (!graph) return CUDA_ERROR_INVALID_HANDLE;
    *executable = keep<CUgraphExec>(graph);
    return CUDA_SUCCESS;
}

CUresult cuGraphLaunch(CUgraphExec handle, CUstream stream_handle) {
    Locked held(lock);
    if (const CUresult error = usable()) return error;
    const auto graph = graph_of(handle);
    const StreamRef stream = stream_of(stream_handle);
    if (!graph || !stream) return CUDA_ERROR_INVALID_HANDLE;
    return issue(stream, [graph]() -> CUresult {
        std::vector<std::size_t> done(graph->lanes.size());
        return run_lane(*graph, 0, graph->lanes[0].size(), done);
    });
}

CUresult cuGraphGetNodes(CUgraph handle, CUgraphNode*, size_t* n) {
    Locked held(lock);
    const auto graph = graph_of(handle);
    if (!graph) return CUDA_ERROR_INVALID_HANDLE;
    *n = 0;
    for (const auto& lane : graph->lanes)
        for (const auto& step : lane) *n += bool(step.work);
    return CUDA_SUCCESS;
}

CUresult cuGraphUpload(CUgraphExec, CUstream) { return usable(); }
CUresult cuGraphExecDestroy(CUgraphExec handle) { return forget(handle); }
CUresult cuGraphDestroy(CUgraph handle) { return forget(handle); }

// `cuda.bindings` asks for every function by its name without a version. The newest is given.
CUresult cuGetProcAddress(const char* name, void** function, int, cuuint64_t,
                          CUdriverProcAddressQueryResult* found) {
    static void* const self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    *function = nullptr;
    for (const char* version : {"_v4", "_v3", "_v2", "", "WithFlags"})
        if (!*function) *function = dlsym(self, (std::string(name) + version).c_str());
    if (found)
        *found = *function ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
