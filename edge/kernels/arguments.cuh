// What the kernels are told: one struct by value each. The host's view of them is arguments.py.
//
// Letters: N bank rows, B frames, P patches a frame, M = B·P, D feature dimensions, W = D + 2 with
// places and D without, Wp = W rounded up to a multiple of 32, K neighbours, S splits of the bank.
#pragma once

constexpr int CANDIDATES = 32;      // kept for each patch and split: one for each lane of a warp
constexpr int MOST_NEIGHBOURS = 16; // K at most: half the candidates, to make certificates likely
constexpr int K_STEP = 32;          // columns of a stage; Wp is a multiple of it

// Pointers first, so that no compiler puts a gap between fields.
struct PrepareRows {
    const float* located;       // (N, W)
    const unsigned char* valid; // (N,)
    const float* mean;          // (W,)
    void* rows;                 // (N, Wp) half, bfloat16 or int8, out
    float* norms;               // (N,) ‖x − mean‖², +inf where not valid, out
    float* scale;               // (N,) out, int8 only
    float* bounds;              // (2,) longest row and largest row error, in and out
    int n, width, padded;
};

// One bank, what is asked of it, the workspace of the search and its answers.
struct Search {
    const void* rows;           // (N, Wp)
    const float* located;       // (N, W); not used for an int8 bank
    const unsigned char* valid; // (N,)
    const float* norms;         // (N,)
    const float* scale;         // (N,)
    const float* mean;          // (W,)
    const float* bounds;        // (2,)
    const int* first;           // (B,) first row of each frame's range
    const int* count;           // (B,) rows of it
    const float* temperature;   // (B,) τ of each frame
    const void* patches;        // (M, D) FP32, or half
    const float* places;        // (M, 2) or null
    void* queries;              // (M, Wp)
    float* query_bounds;        // (M, 2) ‖q − mean‖, NaN if the patch is not finite; ‖q − q̂‖
    float* approx;              // (M, S, 32) ascending
    int* candidates;            // (M, S, 32) rows within the range, −1 where approx is +inf
    int* uncertified;           // (1 + M,)
    float* distances;           // (M, K)
    int* neighbours;            // (M, K)
    float* residual;            // (M, D)
    float* evidence;            // (M,)
    int dimensions, padded, splits, k;
};

struct Searches {
    Search search[2];
    int searches, frames, patches, every_patch, half_patches;
};

// What the heads are told: answers of the search of both banks, and whose head each frame has.
struct Judge {
    const void* patches;            // (M, D) FP32, or half
    const float* normal_residual;   // (M, D)
    const float* abnormal_residual; // (M, D)
    const float* normal_distances;  // (M, K)
    const float* abnormal_distances; // (M, K)
    const float* evidence;          // (M,) of the normal bank
    const float* hidden_weight;     // (H, Z, U), Z = 3·D + 2·K + 1
    const float* hidden_bias;       // (H, U)
    const float* output_weight;     // (H, U)
    const float* output_bias;       // (H,)
    const int* head;                // (B,) whose head
    const float* weight;            // (B,) how much it may raise
    const float* foreground;        // (M,) 1 where a patch is inspected, else 0
    float* scores;                  // (M,)
    int dimensions, k, units, per_frame, half_patches;
};

struct Resize {
    const unsigned char* source; // (height, width, 3)
    unsigned char* target;       // (rows, columns, 3)
    const int* row_first;        // (rows,) first source row that a target row looks at
    const float* row_weights;    // (rows, row_taps)
    const int* column_first;     // (columns,)
    const float* column_weights; // (columns, column_taps)
    int height, width, rows, columns, row_taps, column_taps;
};

struct Cut {
    const unsigned char* canvas; // (height, width, 3)
    unsigned char* view;         // (side, side, 3)
    int height, width, top, left, side;
};

struct Upsample {
    const float* source; // (rows, columns)
    float* target;       // (height, width)
    int rows, columns, height, width;
};

struct Blur {
    const float* source;  // (height, width)
    float* target;        // (height, width), another buffer
    const float* weights; // (2·radius + 1,)
    int height, width, radius, vertical;
};
