// Every kernel of the station, under the names by which the host finds them: see README.md.

#include "arguments.cuh"
#include "instructions.cuh"
#include "tile.cuh"
#include "lists.cuh"
#include "scan.cuh"
#include "prepare.cuh"
#include "answer.cuh"
#include "finish.cuh"
#include "exhaustive.cuh"
#include "judge.cuh"
#include "frames.cuh"
#include "maps.cuh"

// One line an entry point. The argument stays where the launch has put it: `__grid_constant__`
// spares each thread a copy when a block picks one of two searches.
#define ENTRY(name, Argument, threads, blocks, call)                                               \
    extern "C" __global__ void __launch_bounds__(threads, blocks)                                  \
        name(const __grid_constant__ Argument task) {                                              \
        call;                                                                                      \
    }

ENTRY(prepare_rows_f16, PrepareRows, 256, 1, prepare_rows<Half>(task))
ENTRY(prepare_rows_bf16, PrepareRows, 256, 1, prepare_rows<Brain>(task))
ENTRY(prepare_rows_s8, PrepareRows, 256, 1, prepare_rows<Int8>(task))

ENTRY(prepare_queries_f16, Searches, 256, 1, prepare_queries<Half>(task))
ENTRY(prepare_queries_bf16, Searches, 256, 1, prepare_queries<Brain>(task))

ENTRY(scan_f16, Searches, ChipTile::THREADS, BLOCKS_AT_ONCE, scan_one_of<Half>(task))
ENTRY(scan_bf16, Searches, ChipTile::THREADS, BLOCKS_AT_ONCE, scan_one_of<Brain>(task))
ENTRY(scan_s8, Searches, ChipTile::THREADS, BLOCKS_AT_ONCE, scan_one_of<Int8>(task))

ENTRY(finish_f32, Searches, 256, 1, finish<LocatedRows>(task))
ENTRY(finish_s8, Searches, 256, 1, finish<ScaledRows>(task))

ENTRY(exhaustive_f32, Searches, 32 * MOST_WARPS, 1, exhaustive<LocatedRows>(task))
ENTRY(exhaustive_s8, Searches, 32 * MOST_WARPS, 1, exhaustive<ScaledRows>(task))

ENTRY(judge, Judge, 256, 1, judge_patches(task))

ENTRY(resize_pass, Resize, 256, 1, resize_pixel(task))
ENTRY(cut_view, Cut, 256, 1, cut_pixel(task))
ENTRY(upsample, Upsample, 256, 1, upsample_pixel(task))
ENTRY(blur, Blur, 256, 1, blur_pixel(task))
