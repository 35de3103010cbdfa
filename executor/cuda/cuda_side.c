/* Queues of transfers beside a rank's own: a stream in the same context (the rank's slice, if it
 * has one), and events as marks. */
#include "executor/cuda/cuda_internal.h"

struct pp_side_queue {
    int device;
    pp_cuda_slice slice;
    cudaStream_t stream;
};

static pp_status fail_side(const pp_side_queue *side, cudaError_t code, pp_error *error) {
    return pp_cuda_host->fail(error, PP_E_FAILED, NULL, "CUDA on device %d: %s", side->device,
                              cudaGetErrorString(code));
}

pp_side_queue *pp_cuda_side_open(void *state) {
    const pp_cuda_queue *queue = state;
    pp_side_queue *side = pp_cuda_host->allocate(sizeof *side);
    if (!side) return NULL;
    *side = (pp_side_queue){.device = queue->device, .slice = queue->slice};
    if (cudaStreamCreateWithFlags(&side->stream, cudaStreamNonBlocking) == cudaSuccess) return side;
    cudaGetLastError();
    pp_cuda_host->release(side);
    return NULL;
}

void pp_cuda_side_close(pp_side_queue *side) {
    cudaStreamDestroy(side->stream);
    pp_cuda_host->release(side);
}

pp_status pp_cuda_side_enter(pp_side_queue *side, pp_error *error) {
    char why[160] = "";
    if (!side->slice.context) {
        cudaError_t code = cudaSetDevice(side->device);
        return code == cudaSuccess ? PP_OK : fail_side(side, code, error);
    }
    if (pp_cuda_slice_enter(&side->slice, why)) return PP_OK;
    return pp_cuda_host->fail(error, PP_E_FAILED, NULL, "CUDA on device %d: %s", side->device, why);
}

void *pp_cuda_side_stream(pp_side_queue *side) {
    return side->stream;
}

pp_status pp_cuda_side_mark(pp_side_queue *side, void **mark, pp_error *error) {
    cudaEvent_t event = NULL;
    *mark = NULL;
    cudaError_t code = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    if (code == cudaSuccess) code = cudaEventRecord(event, side->stream);
    if (code == cudaSuccess) {
        *mark = event;
        return PP_OK;
    }
    if (event) cudaEventDestroy(event);
    return fail_side(side, code, error);
}

pp_status pp_cuda_side_passed(pp_side_queue *side, void *mark, bool *passed, pp_error *error) {
    cudaError_t code = cudaEventQuery(mark);
    *passed = code == cudaSuccess;
    if (code == cudaErrorNotReady) return PP_OK;
    if (code != cudaSuccess) return fail_side(side, code, error);
    cudaEventDestroy(mark);
    return PP_OK;
}

void pp_cuda_side_forget(pp_side_queue *side, void *mark) {
    (void)side;
    cudaEventDestroy(mark);
}
