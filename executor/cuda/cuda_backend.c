/* The cuda backend: a rank is a host thread with a stream and a cuBLAS handle of its own, on a
 * device of its own or on a slice of one that ranks share.
 *
 * Work is only asked for; `finish` waits for it. CUDA's errors are sticky: whatever failed since
 * the last wait is found there, and told in CUDA's words. */
#include "executor/cuda/cuda_internal.h"

#include "executor/cuda/attention.h"
#include "executor/cuda/cuda_layers.h"
#include "executor/cuda/cuda_memory.h"
#include "executor/cuda/queue.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static _Thread_local pp_cuda_queue *current;
static atomic_int a_device; /* that a rank of this process is on */

pp_cuda_queue *pp_cuda_current(void) {
    return current;
}

void pp_cuda_note(pp_cuda_queue *queue, const char *what) {
    if (!queue->note[0]) snprintf(queue->note, sizeof queue->note, "%s", what);
}

static void note_code(pp_cuda_queue *queue, cudaError_t code) {
    if (code != cudaSuccess) pp_cuda_note(queue, cudaGetErrorString(code));
}

/* ---- what queue.h promises ----------------------------------------------------------------- */

pp_launch pp_cuda_launch(bool bf16) {
    return (pp_launch){.stream = current->stream, .bf16 = bf16};
}

/* Grows before the first step is over, and not after: rows do not become more. */
float *pp_cuda_scratch(int64_t count) {
    pp_cuda_queue *queue = current;
    if (count <= queue->scratch_count) return queue->scratch;
    note_code(queue, cudaStreamSynchronize(queue->stream));
    cudaFree(queue->scratch);
    queue->scratch = NULL;
    queue->scratch_count = 0;
    cudaError_t code = cudaMalloc((void **)&queue->scratch, (size_t)count * sizeof(float));
    note_code(queue, code);
    if (code == cudaSuccess) queue->scratch_count = count;
    return queue->scratch;
}

void *pp_cuda_workspace(size_t *size_bytes) {
    *size_bytes = PP_CUDA_WORKSPACE_BYTES;
    return current->workspace;
}

void **pp_cuda_attention(void) {
    return &current->attention;
}

void pp_cuda_seat(int32_t *device, int32_t *multiprocessors) {
    *device = current->device;
    *multiprocessors = (int32_t)current->slice.multiprocessors;
}

void pp_cuda_say(bool warns, const char *text) {
    pp_cuda_host->log(warns ? PP_LOG_WARNING : PP_LOG_INFO, "executor", "%s", text);
}

void pp_cuda_fail(const char *what) {
    pp_cuda_note(current, what);
}

double *pp_cuda_loss(void) {
    return current->loss;
}

static void await(pp_cuda_queue *queue) {
    note_code(queue, cudaStreamSynchronize(queue->stream));
    if (queue->fetched) *queue->fetched = *queue->seen;
    queue->fetched = NULL;
}

/* By way of pinned memory. A copy into any other waits inside the driver for all that was asked for
 * before it, and keeps the other ranks' threads from asking for anything meanwhile: on an H100
 * every forward pass beside a head's took as much longer as the head took. */
void pp_cuda_fetch_loss(double *loss) {
    if (current->fetched && current->fetched != loss) await(current);
    current->fetched = loss;
    note_code(current, cudaMemcpyAsync(current->seen, current->loss, sizeof *current->seen,
                                       cudaMemcpyDeviceToHost, current->stream));
}

void pp_cuda_upload(void *to, const void *from, size_t size_bytes) {
    note_code(current,
              cudaMemcpyAsync(to, from, size_bytes, cudaMemcpyHostToDevice, current->stream));
    note_code(current, cudaStreamSynchronize(current->stream));
}

void *pp_cuda_host_allocate(size_t size_bytes) {
    void *block = pp_cuda_host->allocate(size_bytes);
    if (!block) pp_cuda_note(current, "out of memory on the host");
    return block;
}

void pp_cuda_host_release(void *block) {
    pp_cuda_host->release(block);
}

/* ---- opening ------------------------------------------------------------------------------- */

static pp_status fail_open(cudaError_t code, int device, pp_error *error) {
    cudaGetLastError();
    return pp_cuda_host->fail(error, PP_E_FAILED, NULL, "device %d cannot be used: %s", device,
                              cudaGetErrorString(code));
}

static pp_status take_slice(pp_cuda_queue *queue, const pp_backend_seat *seat, pp_error *error) {
    char why[160] = "";
    if (seat->slices < 1 || (seat->slices == 1 && !seat->must_slice)) return PP_OK;
    if (pp_cuda_slice_take(seat->device, seat->slice, seat->slices, &queue->slice, why))
        return PP_OK;
    if (seat->must_slice)
        return pp_cuda_host->fail(error, PP_E_FAILED, "--slices", "device %d is not cut: %s",
                                  seat->device, why);
    pp_cuda_host->log(PP_LOG_WARNING, "executor",
                      "%d ranks share device %d without slices (%s): they disturb each other, and "
                      "predicted times will not hold",
                      seat->slices, seat->device, why);
    return PP_OK;
}

static cudaError_t open_queue(pp_cuda_queue *queue) {
    cudaError_t code = cudaStreamCreateWithFlags(&queue->stream, cudaStreamNonBlocking);
    if (code == cudaSuccess) code = cudaMalloc(&queue->workspace, PP_CUDA_WORKSPACE_BYTES);
    if (code == cudaSuccess) code = cudaMalloc((void **)&queue->loss, sizeof *queue->loss);
    if (code == cudaSuccess)
        code = cudaHostAlloc((void **)&queue->seen, sizeof *queue->seen, cudaHostAllocPortable);
    return code;
}

static bool open_blas(pp_cuda_queue *queue) {
    return cublasCreate(&queue->blas) == CUBLAS_STATUS_SUCCESS &&
           cublasSetStream(queue->blas, queue->stream) == CUBLAS_STATUS_SUCCESS &&
           cublasSetWorkspace(queue->blas, queue->workspace, PP_CUDA_WORKSPACE_BYTES) ==
               CUBLAS_STATUS_SUCCESS;
}

static void cuda_close(void *state) {
    pp_cuda_queue *queue = state;
    if (!queue) return;
    if (queue->slice.context == NULL) cudaSetDevice(queue->device);
    if (queue->stream) cudaStreamSynchronize(queue->stream);
    pp_attention_close(queue->attention);
    if (queue->blas) cublasDestroy(queue->blas);
    cudaFree(queue->workspace);
    cudaFree(queue->scratch);
    cudaFree(queue->loss);
    cudaFreeHost(queue->seen);
    if (queue->stream) cudaStreamDestroy(queue->stream);
    if (current == queue) current = NULL;
    pp_cuda_host->release(queue);
}

static pp_status open_parts(pp_cuda_queue *queue, pp_error *error) {
    cudaError_t code = open_queue(queue);
    if (code != cudaSuccess) return fail_open(code, queue->device, error);
    if (open_blas(queue)) return PP_OK;
    return pp_cuda_host->fail(error, PP_E_FAILED, NULL, "cuBLAS cannot be opened on device %d",
                              queue->device);
}

static pp_status cuda_open(const pp_backend_seat *seat, void **state, pp_error *error) {
    int devices = 0;
    *state = NULL;
    cudaError_t code = cudaGetDeviceCount(&devices);
    if (code != cudaSuccess) return fail_open(code, seat->device, error);
    if (seat->device >= devices)
        return pp_cuda_host->fail(error, PP_E_INPUT, "--device",
                                  "cuda:%d is not there: this machine has %d CUDA device%s, from 0",
                                  seat->device, devices, devices == 1 ? "" : "s");
    code = cudaSetDevice(seat->device);
    if (code != cudaSuccess) return fail_open(code, seat->device, error);
    pp_cuda_queue *queue = pp_cuda_host->allocate(sizeof *queue);
    if (!queue) return pp_cuda_host->fail(error, PP_E_OUT_OF_MEMORY, NULL, "out of memory");
    *queue = (pp_cuda_queue){.device = seat->device};
    atomic_store(&a_device, seat->device);
    pp_status status = take_slice(queue, seat, error);
    if (status == PP_OK) status = open_parts(queue, error);
    if (status == PP_OK)
        *state = current = queue;
    else
        cuda_close(queue);
    return status;
}

/* ---- memory -------------------------------------------------------------------------------- */

static void *cuda_allocate(void *state, size_t size_bytes) {
    void *block = NULL;
    (void)state;
    if (cudaMalloc(&block, size_bytes > 0 ? size_bytes : 1) == cudaSuccess) return block;
    cudaGetLastError(); /* the caller tells it */
    return NULL;
}

static void cuda_release(void *state, void *block, size_t size_bytes) {
    (void)state;
    (void)size_bytes;
    cudaFree(block);
}

static void cuda_upload(void *state, void *to, const void *host, size_t size_bytes) {
    (void)state;
    pp_cuda_upload(to, host, size_bytes);
}

static void cuda_download(void *state, void *host, const void *from, size_t size_bytes) {
    pp_cuda_queue *queue = state;
    note_code(queue,
              cudaMemcpyAsync(host, from, size_bytes, cudaMemcpyDeviceToHost, queue->stream));
    note_code(queue, cudaStreamSynchronize(queue->stream));
}

static pp_status cuda_finish(void *state, pp_error *error) {
    pp_cuda_queue *queue = state;
    await(queue);
    note_code(queue, cudaGetLastError());
    if (!queue->note[0]) return PP_OK;
    pp_status status = pp_cuda_host->fail(error, PP_E_FAILED, NULL, "CUDA on device %d: %s",
                                          queue->device, queue->note);
    queue->note[0] = '\0';
    return status;
}

/* ---- the table ----------------------------------------------------------------------------- */

/* "NVIDIA H200, 132 multiprocessors, 139.8 GiB, driver 13.0, runtime 13.0" */
static bool cuda_usable(char detail[256]) {
    int count = 0, driver = 0, runtime = 0;
    struct cudaDeviceProp properties;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (driver == 0) {
        snprintf(detail, 256, "no NVIDIA driver (libcuda.so.1) is on this machine");
        return false;
    }
    cudaError_t code = cudaGetDeviceCount(&count);
    if (code == cudaErrorInsufficientDriver) {
        snprintf(detail, 256,
                 "the driver is for CUDA %d.%d, older than the toolkit's %d.%d: update the driver, "
                 "or build with an older toolkit",
                 driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
        return false;
    }
    if (code == cudaSuccess && count > 0) code = cudaGetDeviceProperties(&properties, 0);
    if (code != cudaSuccess || count == 0) {
        snprintf(detail, 256, "no CUDA device: %s",
                 code != cudaSuccess ? cudaGetErrorString(code) : "the driver lists none");
        return false;
    }
    snprintf(detail, 256, "%.120s, %d multiprocessors, %.1f GiB, driver %d.%d, runtime %d.%d",
             properties.name, properties.multiProcessorCount,
             (double)properties.totalGlobalMem / 1073741824.0, driver / 1000, driver % 1000 / 10,
             runtime / 1000, runtime % 1000 / 10);
    return true;
}

static int cuda_devices(void) {
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

static bool cuda_device(int number, pp_backend_device *device) {
    struct cudaDeviceProp properties;
    size_t free_bytes = 0, all_bytes = 0;
    if (cudaGetDeviceProperties(&properties, number) != cudaSuccess ||
        cudaSetDevice(number) != cudaSuccess ||
        cudaMemGetInfo(&free_bytes, &all_bytes) != cudaSuccess) {
        cudaGetLastError();
        return false;
    }
    *device = (pp_backend_device){.memory_bytes = (int64_t)all_bytes,
                                  .free_bytes = (int64_t)free_bytes,
                                  .rank_bytes = PP_CUDA_WORKSPACE_BYTES,
                                  .slices = pp_cuda_slices_most(number)};
    snprintf(device->name, sizeof device->name, "%.120s", properties.name);
    return true;
}

/* Pinned: the device reads and writes it without a copy between. */
static void *cuda_host_allocate(size_t size_bytes) {
    void *block = NULL;
    if (!current)
        cudaSetDevice(atomic_load(&a_device)); /* or a context on device 0 would be made */
    if (cudaHostAlloc(&block, size_bytes > 0 ? size_bytes : 1, cudaHostAllocPortable) ==
        cudaSuccess)
        return block;
    cudaGetLastError();
    return NULL;
}

static void cuda_host_release(void *block) {
    cudaFreeHost(block);
}

static void cuda_describe(int device, char name[128], char driver[128], char libraries[256],
                          char clocks[128]) {
    int version = 0, runtime = 0, blas = 0, kilohertz = 0;
    struct cudaDeviceProp properties;
    snprintf(name, 128, "cuda:%d", device);
    if (cudaGetDeviceProperties(&properties, device) == cudaSuccess)
        snprintf(name, 128, "%.120s", properties.name);
    cudaDriverGetVersion(&version);
    cudaRuntimeGetVersion(&runtime);
    cublasGetProperty(MAJOR_VERSION, &blas);
    snprintf(driver, 128, "CUDA driver %d.%d", version / 1000, version % 1000 / 10);
    snprintf(libraries, 256, "ppsim %s, CUDA %d.%d, cuBLAS %d", PP_VERSION, runtime / 1000,
             runtime % 1000 / 10, blas);
    if (cudaDeviceGetAttribute(&kilohertz, cudaDevAttrClockRate, device) == cudaSuccess)
        snprintf(clocks, 128, "at most %d MHz", kilohertz / 1000);
    else
        snprintf(clocks, 128, "unknown");
}

const pp_backend pp_cuda_backend = {
    .name = "cuda",
    .runs_layers = true,
    .usable = cuda_usable,
    .describe = cuda_describe,
    .open = cuda_open,
    .close = cuda_close,
    .allocate = cuda_allocate,
    .release = cuda_release,
    .layer = pp_cuda_layer,
    .device_memory = true,
    .copy = pp_cuda_copy,
    .fill = pp_cuda_fill,
    .add = pp_cuda_add,
    .step = pp_cuda_step,
    .make_master = pp_cuda_make_master,
    .square_sum = pp_cuda_square_sum,
    .upload = cuda_upload,
    .download = cuda_download,
    .finish = cuda_finish,
    .devices = cuda_devices,
    .device = cuda_device,
    .side_open = pp_cuda_side_open,
    .side_close = pp_cuda_side_close,
    .side_enter = pp_cuda_side_enter,
    .side_stream = pp_cuda_side_stream,
    .side_mark = pp_cuda_side_mark,
    .side_passed = pp_cuda_side_passed,
    .side_forget = pp_cuda_side_forget,
    .host_allocate = cuda_host_allocate,
    .host_release = cuda_host_release,
};
