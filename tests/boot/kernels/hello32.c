/* Says what the boot loader said. */
#include "io.h"

struct information {
    u32 flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr;
    u32 sections, section_size, section_headers, section_names;
    u32 mmap_length, mmap_addr, drives_length, drives_addr, config_table, boot_loader_name;
};
struct module { u32 start, end, string, reserved; };
struct range { u32 size; u64 base, length; u32 type; } __attribute__((packed));
struct section { u32 name, type, flags, addr, offset, size, link, info, align, entry_size; };

static void show_modules(const struct information *info)
{
    const struct module *module = (const void *)info->mods_addr;
    for (u32 i = 0; i < info->mods_count; i++, module++) {
        dec("module ", i);
        dec(" size ", module->end - module->start);
        print(module->start & 4095 ? " unaligned" : " aligned");
        print(" string ");
        print((const char *)module->string);
        print("\ncontent ");
        for (const char *p = (const char *)module->start; p < (const char *)module->end; p++) putch(*p);
        print("\n");
    }
}

static void show_map(const struct information *info)
{
    for (u32 at = info->mmap_addr; at < info->mmap_addr + info->mmap_length;) {
        const struct range *range = (const void *)at;
        hex("map ", range->base);
        hex(" ", range->base + range->length);
        dec(" type ", range->type);
        print("\n");
        at += range->size + 4;
    }
}

static void show_sections(const struct information *info)
{
    const struct section *section = (const void *)info->section_headers;
    if (info->section_size != sizeof *section) print("section size wrong\n");
    const char *names = (const char *)section[info->section_names].addr;
    for (u32 i = 1; i < info->sections; i++) {
        print("section ");
        print(names + section[i].name);
        print(section[i].addr ? "\n" : " nowhere\n");
    }
}

void kmain(u32 magic, const struct information *info)
{
    serial_init();
    hex("magic ", magic);
    hex("\nflags ", info->flags & 0x249);
    dec("\nmem_lower ", info->mem_lower);
    dec("\nmem_upper ", info->mem_upper);
    print("\ncmdline ");
    print((const char *)info->cmdline);
    print("\nloader ");
    print((const char *)info->boot_loader_name);
    print("\n");
    show_modules(info);
    show_map(info);
    if (info->flags & 0x20) show_sections(info);
    finish(16);
}
