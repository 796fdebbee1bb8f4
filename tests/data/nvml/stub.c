/* Two GPUs as NVML would tell of them, for the tests: the second is lost once a file named by STUB_LOST is there. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef void *device_t;
static char places[2];
static int events;
static const char *where; /* asked for once: getenv() in a GpuWatch's thread races with setenv() of later tests */

static int index_of(device_t device) { return (int)((char *)device - places); }
static int lost(device_t device) { return index_of(device) == 1 && access(where, F_OK) == 0 ? 15 : 0; }

int nvmlInit_v2(void)
{
    const char *told = getenv("STUB_LOST");
    return (where = told ? strdup(told) : NULL) ? 0 : 9;
}
const char *nvmlErrorString(int error) { return error == 15 ? "GPU is lost" : error == 9 ? "Driver Not Loaded" : "?"; }
int nvmlDeviceGetCount_v2(unsigned *count) { return *count = 2, 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t *device) { return *device = &places[index], 0; }
int nvmlDeviceGetUUID(device_t device, char *uuid, unsigned length)
{
    return strncpy(uuid, index_of(device) ? "GPU-bbbb-1" : "GPU-aaaa-0", length), 0;
}
int nvmlDeviceGetPciInfo_v3(device_t device, void *to)
{
    struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } info = {"", 0, 0x3b, 0, 1, 2, ""};
    info.bus += index_of(device);
    return memcpy(to, &info, sizeof info), 0;
}
int nvmlDeviceGetUtilizationRates(device_t device, unsigned *to) { return to[0] = 97, to[1] = 40, lost(device); }
int nvmlDeviceGetMemoryInfo(device_t device, unsigned long long *to)
{
    return to[0] = 80ULL << 30, to[1] = 19ULL << 30, to[2] = 61ULL << 30, lost(device);
}
int nvmlDeviceGetMemoryInfo_v2(device_t device, void *to)
{
    struct { unsigned version; unsigned long long total, reserved, free, used; } *memory = to;
    if (index_of(device) || memory->version != (2u << 24 | sizeof *memory))
        return 13; /* the second has an old driver */
    memory->total = 80ULL << 30, memory->reserved = 1ULL << 30, memory->used = 60ULL << 30;
    return lost(device);
}
int nvmlDeviceGetTemperature(device_t device, int sensor, unsigned *to)
{
    return *to = sensor == 0 ? 64 + index_of(device) : 0, lost(device);
}
int nvmlDeviceGetPowerUsage(device_t device, unsigned *to) { return *to = 452500, lost(device); }
int nvmlDeviceGetClockInfo(device_t device, int clock, unsigned *to) { return *to = clock == 1 ? 1980 : 0, lost(device); }
int nvmlDeviceGetCurrentClocksThrottleReasons(device_t device, unsigned long long *to)
{
    return *to = index_of(device) ? 0x60 : 0x1, lost(device);
}
int nvmlDeviceGetTotalEccErrors(device_t device, int kind, int counter, unsigned long long *to)
{
    return *to = kind * 10 + counter, index_of(device) ? 3 : 0; /* the second supports none */
}
int nvmlEventSetCreate(void **set) { return *set = &events, 0; }
int nvmlDeviceRegisterEvents(device_t device, unsigned long long types, void *set)
{
    return (void)device, events += types == 8 && set == &events, 0;
}
int nvmlEventSetWait_v2(void *set, void *to, unsigned milliseconds)
{
    struct { device_t device; unsigned long long type, data; unsigned gpu, compute; } event = {&places[1], 8, 79, 0, 0};
    if (set != &events || milliseconds || events != 2)
        return 10;
    events = 3;
    return memcpy(to, &event, sizeof event), 0;
}
