// A camera frame on its way to the network: the resize of inspection.preprocessing, pass by pass,
// and normalisation. One thread a pixel.
#pragma once

// Shares come from float64, and 8-bit pixels leave FP32 sums 1e-4 of a level off at most, so a
// pixel differs from the definition only where that lies within 1e-4 of a half, and by one level.
__device__ void resize_pixel(const Resize& task) {
    const int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 8 + threadIdx.y;
    if (x >= task.columns || y >= task.rows) return;
    const int left = task.column_first[x], top = task.row_first[y];
    float mixed[3] = {0.0f, 0.0f, 0.0f};
    // Shares past the edge are 0: those pixels are not there to be read.
    const int down = min(task.row_taps, task.height - top);
    const int across = min(task.column_taps, task.width - left);
    for (int i = 0; i < down; ++i) {
        const unsigned char* pixel = task.source + ((long long)(top + i) * task.width + left) * 3;
        float line[3] = {0.0f, 0.0f, 0.0f};
        for (int j = 0; j < across; ++j, pixel += 3) {
            const float share = task.column_weights[x * task.column_taps + j];
            for (int c = 0; c < 3; ++c) line[c] = fmaf(share, float(pixel[c]), line[c]);
        }
        const float share = task.row_weights[y * task.row_taps + i];
        for (int c = 0; c < 3; ++c) mixed[c] = fmaf(share, line[c], mixed[c]);
    }
    unsigned char* pixel = task.target + ((long long)y * task.columns + x) * 3;
    for (int c = 0; c < 3; ++c)
        pixel[c] = static_cast<unsigned char>(fminf(fmaxf(floorf(mixed[c] + 0.5f), 0.0f), 255.0f));
}

__device__ void normalise_pixel(const Normalise& task) {
    const int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 8 + threadIdx.y;
    if (x >= task.width || y >= task.height) return;
    const unsigned char* pixel = task.canvas + ((long long)y * task.stride_px + x) * 3;
    for (int c = 0; c < 3; ++c) {
        const float value = (float(pixel[c]) / 255.0f - task.mean[c]) / task.std[c];
        task.planes[((long long)c * task.height + y) * task.width + x] = rounded<Half>(value).bits;
    }
}
