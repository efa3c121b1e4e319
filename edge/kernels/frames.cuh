// A camera frame on its way to the network: the resize of inspection.preprocessing, pass by pass,
// and the views of inspection.views. One thread a pixel.
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

// Beyond the canvas lies its mirror image, which begins with the last pixel again, and is mirrored
// once more as often as need be: numpy's `symmetric`.
__device__ __forceinline__ int mirrored(int at, int size) {
    const int within = at % (2 * size);
    return within < size ? within : 2 * size - 1 - within;
}

__device__ void cut_pixel(const Cut& task) {
    const int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 8 + threadIdx.y;
    if (x >= task.side || y >= task.side) return;
    const int row = mirrored(task.top + y, task.height), column = mirrored(task.left + x, task.width);
    const unsigned char* from = task.canvas + ((long long)row * task.width + column) * 3;
    unsigned char* pixel = task.view + ((long long)y * task.side + x) * 3;
    for (int c = 0; c < 3; ++c) pixel[c] = from[c];
}
