// report.cpp - what a fault says: the kernel, the block, the thread, the line.
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <link.h>
#include <unistd.h>
#include "machine.h"

namespace simt {
/* The file that holds this code, and the address that it is loaded at. */
static std::pair<std::string, uintptr_t> this_module() {
  struct Search {
    uintptr_t wanted;
    std::string path;
    uintptr_t base = 0;
  } search{reinterpret_cast<uintptr_t>(&this_module), "", 0};
  dl_iterate_phdr(
      [](dl_phdr_info *info, size_t, void *data) {
        auto &search = *static_cast<Search *>(data);
        for (int i = 0; i < info->dlpi_phnum; i++) {
          const auto &segment = info->dlpi_phdr[i];
          if (segment.p_type != PT_LOAD || search.wanted - (info->dlpi_addr + segment.p_vaddr) >= segment.p_memsz)
            continue;
          char self[1024] = "";
          if (info->dlpi_name[0] == 0 && readlink("/proc/self/exe", self, sizeof(self) - 1) < 0) self[0] = 0;
          search.path = info->dlpi_name[0] ? info->dlpi_name : self;
          search.base = info->dlpi_addr;
          return 1;
        }
        return 0;
      },
      &search);
  return {search.path, search.base};
}

/* addr2line's words for an address: function and file:line by turns, from the innermost inlined call outwards. */
static std::vector<std::string> frames(const void *address) {
  const auto [path, base] = this_module();
  char text[2048];
  snprintf(text, sizeof(text), "addr2line -f -C -i -e '%s' 0x%zx 2>/dev/null", path.c_str(),
           static_cast<size_t>(reinterpret_cast<uintptr_t>(address) - base));
  std::vector<std::string> lines;
  FILE *pipe = popen(text, "r");
  while (pipe && fgets(text, sizeof(text), pipe)) {
    text[strcspn(text, "\n")] = 0;
    lines.push_back(text);
  }
  if (pipe) pclose(pipe);
  return lines;
}

std::string line_of(const void *place) {
  // A return address is behind its call. Of the headers that stand for instructions the caller's line is wanted.
  static const char *const headers[] = {
      "instructions.h", "instructions_sm90.h", "wgmma.h", "language.h", "numbers.h", "warp.h", "runtime.h"};
  const auto lines = frames(static_cast<const char *>(place) - 1);
  for (size_t i = 1; i < lines.size(); i += 2) {
    std::string file = lines[i].substr(lines[i].rfind('/') + 1);
    file = file.substr(0, file.find(" (discriminator"));
    const std::string name = file.substr(0, file.find(':'));
    if (std::none_of(std::begin(headers), std::end(headers), [&](const char *header) { return name == header; }))
      return file;
  }
  return "an unknown line";
}

std::string function_at(const void *address) {
  const auto lines = frames(address);
  if (lines.empty() || lines[0] == "??") return "an unnamed kernel";
  const std::string name = lines[0].substr(0, lines[0].find('(')); // a template's begins with its result
  return name.rfind("void ", 0) == 0 ? name.substr(5) : name;
}

static std::string index_text(uint3 index) {
  return "(" + std::to_string(index.x) + "," + std::to_string(index.y) + "," + std::to_string(index.z) + ")";
}

std::string actor_name(Actor actor) {
  if (!machine.is_thread(actor))
    return machine.actor_names[actor - machine.blocks.size() * machine.threads_per_block()];
  const Thread &thread = machine.thread(actor);
  const std::string name = "thread " + index_text(thread.index);
  return machine.blocks.size() == 1 ? name : name + " of block " + index_text(thread.block->index);
}

/* Ends the launch: from a thread by never going on with it, from an engine by an exception for the scheduler. */
void fault(const char *format, ...) {
  char message[2048];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof(message), format, arguments);
  va_end(arguments);
  Thread *const self = machine.current;
  const Thread *const blamed = self ? self : machine.working ? machine.working->thread : nullptr;
  std::string where = "kernel " + function_at(machine.launch->kernel);
  if (blamed) {
    where += ", block " + index_text(blamed->block->index) + ", thread " + index_text(blamed->index);
    const void *const place = self ? self->place : machine.working->place;
    if (place) where += ", " + line_of(place);
  }
  machine.fault = where + ": " + message;
  if (!self) throw Abandoned();
  switch_fiber(self->fiber, machine.scheduler);
  __builtin_unreachable();
}
} // namespace simt
