/* A libnvidia-ml.so.1 that answers from a text file, for machines without a GPU.
 *
 * It has the symbols that NVIDIA's Python binding looks up for qwenhost, with their real types, and
 * reads the machine from the file named by STUB_NVML_CONFIG:
 *
 *   driver 580.95.05
 *   cuda 13000
 *   error nvmlInitWithFlags 9       every call of this function returns this code
 *   gpu                             begins a GPU; the lines below describe it
 *   name NVIDIA H200
 *   uuid GPU-00000000-...
 *   mig_uuid MIG-...                a MIG device on this GPU
 *   pci 00000000:18:00.0
 *   capability 9 0
 *   memory 150754820096 1073741824  total and used bytes
 *   mig 0
 *   power_limit_mw 700000
 *   now 87 512000 64 4              utilisation in %, power in mW, temperature in C, bits of slowed clocks
 *   xid 79                          a fault that waits to be told
 *   compute 4242 1073741824         a process and its bytes; -1 = not available
 *   graphics 17 4096
 *   nvlink_switch 18                ports that lead to a switch
 *   nvlink_gpu 1 4                  ports that lead to GPU 1
 *   nvlink_down 2                   ports that exist but are inactive
 *   error nvmlDeviceGetMemoryInfo 3 for this GPU alone
 *   topology 0 1 50                 common ancestor of two GPUs (default 50, the system)
 *   p2p 0 1 2 5                     status of capability 2 between two GPUs (default 0, fine)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, TIMEOUT = 10 };
enum { MAX_GPUS = 64, MAX_PROCESSES = 16, MAX_PORTS = 36, MAX_ERRORS = 16 };
enum { PORT_NONE = -3, PORT_DOWN = -2, PORT_SWITCH = -1 };

typedef struct {
    char function[64];
    int code;
} Fault;

typedef struct {
    unsigned pid;
    unsigned long long bytes;
    unsigned gpu_instance, compute_instance;
} Process; /* nvmlProcessInfo_t */

typedef struct {
    char bus_id_legacy[16];
    unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
} PciInfo; /* nvmlPciInfo_t */

typedef struct {
    unsigned long long total, free, used;
} Memory; /* nvmlMemory_t */

typedef struct {
    char name[96], uuid[96], mig_uuid[96], pci[32];
    int major, minor;
    unsigned long long total, used;
    unsigned mig, power_limit_mw, busy, power_mw, celsius, slowed, xid;
    Process compute[MAX_PROCESSES], graphics[MAX_PROCESSES];
    unsigned computes, graphicses;
    int ports[MAX_PORTS], port_count; /* index of the GPU at the other end, or PORT_... */
    Fault faults[MAX_ERRORS];
    int fault_count;
} Gpu;

typedef struct {
    unsigned gpu, memory;
} Utilization; /* nvmlUtilization_t */

typedef struct {
    Gpu *gpu;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
} Event; /* nvmlEventData_t */

static Gpu gpus[MAX_GPUS];
static int gpu_count, initialised;
static char driver[96] = "580.95.05";
static int cuda = 13000;
static Fault faults[MAX_ERRORS];
static int fault_count;
static int topology[MAX_GPUS][MAX_GPUS];
static int p2p[MAX_GPUS][MAX_GPUS][8];

/* A MIG device's handle is its GPU's plus this. */
#define MIG_OFFSET 1

static void add_ports(Gpu *gpu, int leads_to, int count) {
    while (count-- > 0 && gpu->port_count < MAX_PORTS) gpu->ports[gpu->port_count++] = leads_to;
}

static void add_process(Process *list, unsigned *count, const char *words) {
    long long bytes;
    Process *process = &list[*count];
    if (*count < MAX_PROCESSES && sscanf(words, "%u %lld", &process->pid, &bytes) == 2) {
        process->bytes = (unsigned long long)bytes;
        process->gpu_instance = process->compute_instance = 0xFFFFFFFFu;
        ++*count;
    }
}

static void bad_line(const char *line) {
    fprintf(stderr, "nvml_stub: cannot read this line: %s\n", line);
    abort();
}

static void read_gpu_line(Gpu *gpu, const char *key, const char *words) {
    int a, b;
    if (!strcmp(key, "name")) snprintf(gpu->name, sizeof gpu->name, "%s", words);
    else if (!strcmp(key, "uuid")) snprintf(gpu->uuid, sizeof gpu->uuid, "%s", words);
    else if (!strcmp(key, "mig_uuid")) snprintf(gpu->mig_uuid, sizeof gpu->mig_uuid, "%s", words);
    else if (!strcmp(key, "pci")) snprintf(gpu->pci, sizeof gpu->pci, "%s", words);
    else if (!strcmp(key, "capability")) sscanf(words, "%d %d", &gpu->major, &gpu->minor);
    else if (!strcmp(key, "memory")) sscanf(words, "%llu %llu", &gpu->total, &gpu->used);
    else if (!strcmp(key, "mig")) gpu->mig = (unsigned)atoi(words);
    else if (!strcmp(key, "power_limit_mw")) gpu->power_limit_mw = (unsigned)atoi(words);
    else if (!strcmp(key, "now"))
        sscanf(words, "%u %u %u %u", &gpu->busy, &gpu->power_mw, &gpu->celsius, &gpu->slowed);
    else if (!strcmp(key, "xid")) gpu->xid = (unsigned)atoi(words);
    else if (!strcmp(key, "compute")) add_process(gpu->compute, &gpu->computes, words);
    else if (!strcmp(key, "graphics")) add_process(gpu->graphics, &gpu->graphicses, words);
    else if (!strcmp(key, "nvlink_switch")) add_ports(gpu, PORT_SWITCH, atoi(words));
    else if (!strcmp(key, "nvlink_down")) add_ports(gpu, PORT_DOWN, atoi(words));
    else if (!strcmp(key, "nvlink_gpu") && sscanf(words, "%d %d", &a, &b) == 2) add_ports(gpu, a, b);
    else bad_line(key);
}

static void read_line(char *line) {
    char *words = strchr(line, ' ');
    int a, b, c, d;
    Gpu *gpu = gpu_count ? &gpus[gpu_count - 1] : NULL;
    if (words) *words++ = '\0';
    else words = line + strlen(line);
    if (!strcmp(line, "driver")) snprintf(driver, sizeof driver, "%s", words);
    else if (!strcmp(line, "cuda")) cuda = atoi(words);
    else if (!strcmp(line, "gpu") && gpu_count < MAX_GPUS) gpu_count++;
    else if (!strcmp(line, "topology") && sscanf(words, "%d %d %d", &a, &b, &c) == 3)
        topology[a][b] = topology[b][a] = c;
    else if (!strcmp(line, "p2p") && sscanf(words, "%d %d %d %d", &a, &b, &c, &d) == 4)
        p2p[a][b][c] = p2p[b][a][c] = d;
    else if (!strcmp(line, "error")) {
        int *count = gpu ? &gpu->fault_count : &fault_count;
        Fault *fault = gpu ? &gpu->faults[*count] : &faults[*count];
        if (sscanf(words, "%63s %d", fault->function, &fault->code) != 2) bad_line(words);
        ++*count;
    } else if (gpu) read_gpu_line(gpu, line, words);
    else bad_line(line);
}

static void read_config(void) {
    const char *path = getenv("STUB_NVML_CONFIG");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[512];
    if (!file) bad_line("STUB_NVML_CONFIG");
    gpu_count = fault_count = 0;
    memset(gpus, 0, sizeof gpus);
    memset(p2p, 0, sizeof p2p);
    for (int a = 0; a < MAX_GPUS; a++)
        for (int b = 0; b < MAX_GPUS; b++) topology[a][b] = 50;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        if (*line) read_line(line);
    }
    fclose(file);
}

static int fault_of(const Fault *list, int count, const char *function) {
    for (int i = 0; i < count; i++)
        if (!strcmp(list[i].function, function)) return list[i].code;
    return SUCCESS;
}

static int check(const char *function, const Gpu *gpu) {
    int code;
    if (!initialised) return UNINITIALIZED;
    code = fault_of(faults, fault_count, function);
    return code || !gpu ? code : fault_of(gpu->faults, gpu->fault_count, function);
}

/* Return from the caller where the configuration asks for an error. */
#define CHECK(gpu)                                  \
    do {                                            \
        int code_ = check(__func__, gpu);           \
        if (code_ != SUCCESS) return code_;         \
    } while (0)

static int copy(char *to, unsigned size, const char *text) {
    if (strlen(text) >= size) return INSUFFICIENT_SIZE;
    strcpy(to, text);
    return SUCCESS;
}

static int index_of(const Gpu *gpu) { return (int)(gpu - gpus); }

/* ---- library and system ---- */

int nvmlInitWithFlags(unsigned flags) {
    int code;
    (void)flags;
    read_config();
    code = fault_of(faults, fault_count, __func__);
    initialised = code == SUCCESS;
    return code;
}

int nvmlShutdown(void) {
    CHECK(NULL);
    initialised = 0;
    return SUCCESS;
}

const char *nvmlErrorString(int code) {
    static char text[32];
    snprintf(text, sizeof text, "stub error %d", code);
    return text;
}

int nvmlSystemGetDriverVersion(char *version, unsigned size) {
    CHECK(NULL);
    return copy(version, size, driver);
}

int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    CHECK(NULL);
    *version = cuda;
    return SUCCESS;
}

/* ---- finding GPUs ---- */

int nvmlDeviceGetCount_v2(unsigned *count) {
    CHECK(NULL);
    *count = (unsigned)gpu_count;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Gpu **gpu) {
    if (index >= (unsigned)gpu_count) return INVALID_ARGUMENT;
    CHECK(&gpus[index]);
    *gpu = &gpus[index];
    return SUCCESS;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, char **handle) {
    CHECK(NULL);
    for (int i = 0; i < gpu_count; i++) {
        *handle = (char *)&gpus[i];
        if (!strcmp(gpus[i].uuid, uuid)) return SUCCESS;
        *handle += MIG_OFFSET;
        if (*gpus[i].mig_uuid && !strcmp(gpus[i].mig_uuid, uuid)) return SUCCESS;
    }
    return NOT_FOUND;
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(char *mig, Gpu **gpu) {
    CHECK(NULL);
    *gpu = (Gpu *)(mig - MIG_OFFSET);
    return SUCCESS;
}

/* ---- one GPU ---- */

int nvmlDeviceGetName(Gpu *gpu, char *name, unsigned size) {
    CHECK(gpu);
    return copy(name, size, gpu->name);
}

int nvmlDeviceGetUUID(Gpu *gpu, char *uuid, unsigned size) {
    CHECK(gpu);
    return copy(uuid, size, gpu->uuid);
}

static void fill_pci(const Gpu *gpu, PciInfo *pci) {
    memset(pci, 0, sizeof *pci);
    snprintf(pci->bus_id, sizeof pci->bus_id, "%s", gpu->pci);
    sscanf(gpu->pci, "%x:%x:%x", &pci->domain, &pci->bus, &pci->device);
}

int nvmlDeviceGetPciInfo_v3(Gpu *gpu, PciInfo *pci) {
    CHECK(gpu);
    fill_pci(gpu, pci);
    return SUCCESS;
}

int nvmlDeviceGetCudaComputeCapability(Gpu *gpu, int *major, int *minor) {
    CHECK(gpu);
    *major = gpu->major;
    *minor = gpu->minor;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(Gpu *gpu, Memory *memory) {
    CHECK(gpu);
    *memory = (Memory){.total = gpu->total, .free = gpu->total - gpu->used, .used = gpu->used};
    return SUCCESS;
}

int nvmlDeviceGetMigMode(Gpu *gpu, unsigned *current, unsigned *pending) {
    CHECK(gpu);
    *current = *pending = gpu->mig;
    return SUCCESS;
}

int nvmlDeviceGetPowerManagementLimit(Gpu *gpu, unsigned *limit_mw) {
    CHECK(gpu);
    *limit_mw = gpu->power_limit_mw;
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(Gpu *gpu, Utilization *use) {
    CHECK(gpu);
    *use = (Utilization){.gpu = gpu->busy, .memory = gpu->busy};
    return SUCCESS;
}

int nvmlDeviceGetPowerUsage(Gpu *gpu, unsigned *mw) {
    CHECK(gpu);
    *mw = gpu->power_mw;
    return SUCCESS;
}

int nvmlDeviceGetTemperature(Gpu *gpu, unsigned sensor, unsigned *celsius) {
    (void)sensor;
    CHECK(gpu);
    *celsius = gpu->celsius;
    return SUCCESS;
}

int nvmlDeviceGetCurrentClocksEventReasons(Gpu *gpu, unsigned long long *reasons) {
    CHECK(gpu);
    *reasons = gpu->slowed;
    return SUCCESS;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(Gpu *gpu, unsigned long long *reasons) {
    CHECK(gpu);
    *reasons = gpu->slowed;
    return SUCCESS;
}

/* ---- faults, each told once ---- */

int nvmlEventSetCreate(int **set) {
    static int the_set;
    CHECK(NULL);
    *set = &the_set;
    return SUCCESS;
}

int nvmlEventSetFree(int *set) {
    (void)set;
    CHECK(NULL);
    return SUCCESS;
}

int nvmlDeviceRegisterEvents(Gpu *gpu, unsigned long long types, int *set) {
    (void)types;
    (void)set;
    CHECK(gpu);
    return SUCCESS;
}

int nvmlEventSetWait_v2(int *set, Event *event, unsigned timeout_ms) {
    (void)set;
    (void)timeout_ms;
    CHECK(NULL);
    for (int i = 0; i < gpu_count; i++)
        if (gpus[i].xid) {
            *event = (Event){.gpu = &gpus[i], .type = 8, .data = gpus[i].xid};
            gpus[i].xid = 0;
            return SUCCESS;
        }
    return TIMEOUT;
}

static int list(const Process *processes, unsigned have, unsigned *count, Process *into) {
    unsigned room = *count;
    *count = have;
    if (have > room || (have && !into)) return INSUFFICIENT_SIZE;
    if (have) memcpy(into, processes, have * sizeof *processes);
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(Gpu *gpu, unsigned *count, Process *into) {
    CHECK(gpu);
    return list(gpu->compute, gpu->computes, count, into);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(Gpu *gpu, unsigned *count, Process *into) {
    CHECK(gpu);
    return list(gpu->graphics, gpu->graphicses, count, into);
}

/* ---- links ---- */

static int port_of(const Gpu *gpu, unsigned port) {
    return port < (unsigned)gpu->port_count ? gpu->ports[port] : PORT_NONE;
}

int nvmlDeviceGetNvLinkState(Gpu *gpu, unsigned port, unsigned *active) {
    CHECK(gpu);
    if (port_of(gpu, port) == PORT_NONE) return INVALID_ARGUMENT;
    *active = port_of(gpu, port) != PORT_DOWN;
    return SUCCESS;
}

int nvmlDeviceGetNvLinkRemoteDeviceType(Gpu *gpu, unsigned port, unsigned *type) {
    CHECK(gpu);
    if (port_of(gpu, port) < PORT_SWITCH) return INVALID_ARGUMENT;
    *type = port_of(gpu, port) == PORT_SWITCH ? 2 : 0;
    return SUCCESS;
}

int nvmlDeviceGetNvLinkRemotePciInfo_v2(Gpu *gpu, unsigned port, PciInfo *pci) {
    CHECK(gpu);
    if (port_of(gpu, port) < 0) return INVALID_ARGUMENT;
    fill_pci(&gpus[port_of(gpu, port)], pci);
    return SUCCESS;
}

int nvmlDeviceGetTopologyCommonAncestor(Gpu *a, Gpu *b, int *level) {
    CHECK(a);
    *level = topology[index_of(a)][index_of(b)];
    return SUCCESS;
}

int nvmlDeviceGetP2PStatus(Gpu *a, Gpu *b, int capability, int *status) {
    CHECK(a);
    if (capability < 0 || capability > 7) return INVALID_ARGUMENT;
    *status = p2p[index_of(a)][index_of(b)][capability];
    return SUCCESS;
}
