/* Slices of a device, so that a pipeline of several ranks runs on one card: each gets some of the
 * multiprocessors for itself (green contexts, CUDA 12.4 and later). Memory bandwidth, L2 and power
 * stay shared.
 *
 * The driver's functions are asked for by name and version at run time: nothing links libcuda, so
 * the plugin loads where there is no driver. */
#include "executor/cuda/cuda_internal.h"

#include <pthread.h>
#include <stdio.h>

enum { DEVICES_MAX = 64, SLICES_MAX = 64, API_VERSION = 12050 };

typedef struct driver {
    CUresult (*device_get)(CUdevice *, int);
    CUresult (*get_resource)(CUdevice, CUdevResource *, CUdevResourceType);
    CUresult (*split)(CUdevResource *, unsigned *, const CUdevResource *, CUdevResource *, unsigned,
                      unsigned);
    CUresult (*describe)(CUdevResourceDesc *, CUdevResource *, unsigned);
    CUresult (*create)(CUgreenCtx *, CUdevResourceDesc, CUdevice, unsigned);
    CUresult (*context_of)(CUcontext *, CUgreenCtx);
    CUresult (*set_current)(CUcontext);
} driver;

/* One cut of one device. It lasts as long as the process: contexts are costly and few. */
typedef struct cut {
    bool made;
    int count;
    pp_cuda_slice slices[SLICES_MAX];
} cut;

static cut cuts[DEVICES_MAX];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static bool find(const char *name, void *function) {
    void *address = NULL;
    enum cudaDriverEntryPointQueryResult result;
#if CUDART_VERSION >= 12050
    cudaError_t code =
        cudaGetDriverEntryPointByVersion(name, &address, API_VERSION, cudaEnableDefault, &result);
#else
    cudaError_t code = cudaGetDriverEntryPoint(name, &address, cudaEnableDefault, &result);
#endif
    *(void **)function = address;
    return code == cudaSuccess && result == cudaDriverEntryPointSuccess && address;
}

static bool open_driver(driver *d) {
    return find("cuDeviceGet", &d->device_get) &&
           find("cuDeviceGetDevResource", &d->get_resource) &&
           find("cuDevSmResourceSplitByCount", &d->split) &&
           find("cuDevResourceGenerateDesc", &d->describe) &&
           find("cuGreenCtxCreate", &d->create) && find("cuCtxFromGreenCtx", &d->context_of) &&
           find("cuCtxSetCurrent", &d->set_current);
}

static unsigned grain_of(const CUdevResource *all) {
    unsigned grain = all->sm.smCoscheduledAlignment > 0 ? all->sm.smCoscheduledAlignment : 1;
    return all->sm.minSmPartitionSize > grain ? all->sm.minSmPartitionSize : grain;
}

/* As many multiprocessors for each slice as the device's granularity allows. */
static unsigned share_of(const CUdevResource *all, int count) {
    unsigned grain = grain_of(all);
    return all->sm.smCount / (unsigned)count / grain * grain;
}

static bool resource_of(const driver *d, int number, CUdevice *device, CUdevResource *all) {
    return d->device_get(device, number) == CUDA_SUCCESS &&
           d->get_resource(*device, all, CU_DEV_RESOURCE_TYPE_SM) == CUDA_SUCCESS;
}

int pp_cuda_slices_most(int number) {
    driver d;
    CUdevice device;
    CUdevResource all;
    if (!open_driver(&d) || !resource_of(&d, number, &device, &all)) return 0;
    unsigned most = all.sm.smCount / grain_of(&all);
    return most < SLICES_MAX ? (int)most : SLICES_MAX;
}

static bool make_slice(const driver *d, CUdevice device, CUdevResource *part,
                       pp_cuda_slice *slice) {
    CUdevResourceDesc description;
    slice->multiprocessors = part->sm.smCount;
    return d->describe(&description, part, 1) == CUDA_SUCCESS &&
           d->create(&slice->green, description, device, CU_GREEN_CTX_DEFAULT_STREAM) ==
               CUDA_SUCCESS &&
           d->context_of(&slice->context, slice->green) == CUDA_SUCCESS;
}

static bool make_cut(const driver *d, int number, int count, cut *made, char why[160]) {
    CUdevice device;
    CUdevResource all, parts[SLICES_MAX];
    unsigned groups = (unsigned)count;
    if (!resource_of(d, number, &device, &all)) {
        snprintf(why, 160, "the driver does not tell the multiprocessors of device %d", number);
        return false;
    }
    unsigned share = share_of(&all, count);
    if (share == 0) {
        snprintf(why, 160, "%d ranks are more than %u multiprocessors can be cut for", count,
                 all.sm.smCount);
        return false;
    }
    if (d->split(parts, &groups, &all, NULL, 0, share) != CUDA_SUCCESS ||
        groups < (unsigned)count) {
        snprintf(why, 160, "the driver refused %d slices of %u multiprocessors", count, share);
        return false;
    }
    for (int i = 0; i < count; i++)
        if (!make_slice(d, device, &parts[i], &made->slices[i])) {
            snprintf(why, 160, "the driver refused the context of slice %d", i);
            return false;
        }
    made->count = count;
    return made->made = true;
}

static bool take_locked(const driver *d, int device, int index, int count, pp_cuda_slice *slice,
                        char why[160]) {
    cut *made = &cuts[device];
    if (made->made && made->count != count) {
        snprintf(why, 160, "device %d is already cut into %d slices", device, made->count);
        return false;
    }
    if (!made->made && !make_cut(d, device, count, made, why)) return false;
    *slice = made->slices[index];
    if (d->set_current(slice->context) == CUDA_SUCCESS) return true;
    snprintf(why, 160, "the driver refused to make slice %d current", index);
    return false;
}

bool pp_cuda_slice_take(int device, int index, int count, pp_cuda_slice *slice, char why[160]) {
    driver d;
    *slice = (pp_cuda_slice){0};
    if (device >= DEVICES_MAX || count > SLICES_MAX || index >= count) {
        snprintf(why, 160, "%d slices of device %d are more than %d", count, device, SLICES_MAX);
        return false;
    }
    if (!open_driver(&d)) {
        snprintf(why, 160, "the driver has no green contexts; they come with CUDA 12.5");
        return false;
    }
    pthread_mutex_lock(&mutex);
    bool taken = take_locked(&d, device, index, count, slice, why);
    pthread_mutex_unlock(&mutex);
    return taken;
}

bool pp_cuda_slice_enter(const pp_cuda_slice *slice, char why[160]) {
    driver d;
    if (open_driver(&d) && d.set_current(slice->context) == CUDA_SUCCESS) return true;
    snprintf(why, 160, "the driver refused to make a slice current in another thread");
    return false;
}
